//! What every store must do, the one in memory included.
