//! A few connections to one export, so that several threads work at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::connection::{NbdAddress, NbdConnection};
use super::error::NbdError;
use super::handshake::{ExportInfo, NbdOptions};

#[derive(Debug)]
pub struct NbdPool {
    address: NbdAddress,
    options: NbdOptions,
    info: ExportInfo,
    max_connections: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    idle: Vec<NbdConnection>,
    /// Idle, lent and being opened.
    open: usize,
}

impl NbdPool {
    /// Opens the first connection; the others when they are needed. A server that
    /// is writable and does not promise that connections see each other's writes
    /// gets one connection only.
    pub fn connect(
        address: NbdAddress,
        options: NbdOptions,
        max_connections: usize,
    ) -> Result<Self, NbdError> {
        let first = NbdConnection::connect(&address, &options)?;
        let info = first.export().clone();
        let several = info.is_read_only() || info.can_multi_conn();
        Ok(Self {
            address,
            options,
            info,
            max_connections: if several { max_connections.max(1) } else { 1 },
            state: Mutex::new(State {
                idle: vec![first],
                open: 1,
            }),
            freed: Condvar::new(),
        })
    }

    pub fn export(&self) -> &ExportInfo {
        &self.info
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a connection. The newest idle one first, so that few are opened.
    fn take(&self) -> Result<NbdConnection, NbdError> {
        let mut state = self.state();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(connection);
            }
            if state.open < self.max_connections {
                state.open += 1;
                drop(state);
                return self.reopen().inspect_err(|_| self.forget());
            }
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn reopen(&self) -> Result<NbdConnection, NbdError> {
        let connection = NbdConnection::connect(&self.address, &self.options)?;
        if connection.export().size_bytes != self.info.size_bytes {
            return Err(NbdError::protocol("the export changed its size"));
        }
        Ok(connection)
    }

    fn forget(&self) {
        self.state().open -= 1;
        self.freed.notify_one();
    }

    /// A server that closed one connection has most likely closed all.
    fn drop_idle(&self) {
        let mut state = self.state();
        let idle = std::mem::take(&mut state.idle);
        state.open -= idle.len();
        drop(state);
        drop(idle);
        self.freed.notify_all();
    }

    fn give_back(&self, connection: NbdConnection) {
        self.state().idle.push(connection);
        self.freed.notify_one();
    }

    /// Runs `work` on a connection; a broken one is thrown away. With `retry`, work
    /// that met a connection that had been closed is done once more on a new one:
    /// for reading only, since a server that restarted may have lost writes.
    pub fn with<T>(
        &self,
        retry: bool,
        mut work: impl FnMut(&mut NbdConnection) -> Result<T, NbdError>,
    ) -> Result<T, NbdError> {
        let mut again = retry;
        loop {
            let mut connection = self.take()?;
            let result = work(&mut connection);
            match result {
                Ok(value) => {
                    self.give_back(connection);
                    return Ok(value);
                }
                Err(error) if error.connection_survives() => {
                    self.give_back(connection);
                    return Err(error);
                }
                Err(error) => {
                    drop(connection);
                    self.forget();
                    self.drop_idle();
                    if !again || !matches!(error, NbdError::Closed { .. }) {
                        return Err(error);
                    }
                    again = false;
                }
            }
        }
    }

    /// Makes what every connection wrote durable. Call it when no other thread writes.
    pub fn flush(&self) -> Result<(), NbdError> {
        let mut connections = std::mem::take(&mut self.state().idle);
        let result = if connections.is_empty() {
            self.with(false, |c| c.flush())
        } else {
            connections.iter_mut().try_for_each(NbdConnection::flush)
        };
        self.state().idle.append(&mut connections);
        self.freed.notify_all();
        result
    }
}
