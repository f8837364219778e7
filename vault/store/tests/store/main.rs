//! The store's tests, in one program: linking some twenty takes minutes.

mod damage;
mod gateway;
mod gateway_capture;
mod gateway_deaths;
mod gateway_deaths_beside;
mod gateway_deaths_commits;
mod gateway_dropped;
mod gateway_index;
mod gateway_rolled_back;
mod gateway_scrub;
mod gateway_tracked;
mod model;
mod objects_conformance;
mod objects_failures;
mod objects_faulty;
mod objects_throttle;
mod outbox;
mod outbox_model;
mod read_assemble;
mod read_fixture;
mod read_history;
mod read_large;
mod read_points;
mod read_verify;
mod site;
mod tracked;
