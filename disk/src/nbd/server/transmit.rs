//! The transmission phase: requests are answered side by side, in whatever order they are done.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, ReadHalf, WriteHalf,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::export::{Export, Piece, ServeError};
use super::messages as m;
use super::negotiate::broken_by;
use crate::nbd::Extent;
use crate::nbd::wire::{self, Request};

/// What a connection's requests under way may hold in data, in KiB: two of the largest.
const MOST_KIB: u32 = 64 * 1024;
/// What a request costs beside its data: a thousand small ones at most.
const EACH_KIB: u32 = 64;
const READ_BUFFER_BYTES: usize = 64 * 1024;
const WRITE_BUFFER_BYTES: usize = 128 * 1024;

type Writer<S> = Arc<Mutex<BufWriter<WriteHalf<S>>>>;

/// Serves one connection until the client goes.
pub async fn transmit<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    export: Arc<dyn Export>,
    structured: bool,
    allocation: bool,
) -> io::Result<()> {
    let (reader, writer) = tokio::io::split(stream);
    let mut session = Session {
        reader: BufReader::with_capacity(READ_BUFFER_BYTES, reader),
        writer: Arc::new(Mutex::new(BufWriter::with_capacity(
            WRITE_BUFFER_BYTES,
            writer,
        ))),
        answering: Answering {
            export,
            structured,
            allocation,
        },
        room: Arc::new(Semaphore::new(MOST_KIB as usize)),
        waiting: JoinSet::new(),
    };
    let ended = session.run().await;
    // Whoever asked for something before going gets it: a flush must not be cut off.
    let mut all = ended;
    while let Some(done) = session.waiting.join_next().await {
        all = all.and(done.unwrap_or_else(|e| Err(io::Error::other(e))));
    }
    all
}

struct Session<S> {
    reader: BufReader<ReadHalf<S>>,
    writer: Writer<S>,
    answering: Answering,
    room: Arc<Semaphore>,
    waiting: JoinSet<io::Result<()>>,
}

/// How requests are answered on this connection.
#[derive(Clone)]
struct Answering {
    export: Arc<dyn Export>,
    structured: bool,
    allocation: bool,
}

/// What a request came to.
enum Answer {
    Done,
    Pieces(Vec<Piece>),
    Extents(Vec<Extent>),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session<S> {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            if self.reader.buffer().len() < 28 {
                // What was answered at once is sent before the next wait.
                self.writer.lock().await.flush().await?;
            }
            let mut header = [0; 28];
            match self.reader.read_exact(&mut header).await {
                Ok(_) => {}
                // A client that goes without a word has what it wanted.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(e),
            }
            let request = m::decode_request(&header).map_err(broken_by)?;
            if request.command == wire::CMD_DISC {
                return Ok(());
            }
            self.answer(request).await?;
            while let Some(done) = self.waiting.try_join_next() {
                done.unwrap_or_else(|e| Err(io::Error::other(e)))?;
            }
        }
    }

    async fn answer(&mut self, request: Request) -> io::Result<()> {
        let carries = match request.command {
            wire::CMD_READ | wire::CMD_WRITE => request.length,
            _ => 0,
        };
        if request.command == wire::CMD_WRITE && carries > wire::MAX_PAYLOAD_BYTES {
            let too_much = format!("a write of {carries} bytes, above what the server takes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, too_much));
        }
        let kib = carries.min(wire::MAX_PAYLOAD_BYTES) / 1024 + EACH_KIB;
        let permit = match self.room.clone().try_acquire_many_owned(kib) {
            Ok(permit) => permit,
            Err(_) => {
                self.writer.lock().await.flush().await?;
                let room = self.room.clone().acquire_many_owned(kib).await;
                room.map_err(io::Error::other)?
            }
        };
        let data = match request.command {
            wire::CMD_WRITE => {
                let mut data = vec![0; carries as usize];
                self.reader.read_exact(&mut data).await?;
                Bytes::from(data)
            }
            _ => Bytes::new(),
        };
        let checked = self.answering.check(&request);
        let now = match checked {
            Err(error) => Some(Err(error)),
            Ok(()) if request.length == 0 && request.command != wire::CMD_FLUSH => {
                Some(Ok(self.answering.nothing(&request)))
            }
            Ok(()) if request.command == wire::CMD_READ => {
                let read = self
                    .answering
                    .export
                    .read_now(request.offset, request.length);
                read.map(|read| read.map(Answer::Pieces))
            }
            Ok(()) => None,
        };
        if let Some(answer) = now {
            let mut writer = self.writer.lock().await;
            return self.answering.send(&mut *writer, &request, answer).await;
        }
        let (answering, writer) = (self.answering.clone(), self.writer.clone());
        self.waiting
            .spawn(later(answering, writer, request, data, permit));
        Ok(())
    }
}

async fn later<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    answering: Answering,
    writer: Writer<S>,
    request: Request,
    data: Bytes,
    permit: OwnedSemaphorePermit,
) -> io::Result<()> {
    let answer = answering.find(&request, data).await;
    let mut writer = writer.lock().await;
    answering.send(&mut *writer, &request, answer).await?;
    writer.flush().await?;
    drop(permit);
    Ok(())
}

impl Answering {
    /// What no export has to see.
    fn check(&self, request: &Request) -> Result<(), ServeError> {
        let known = match request.command {
            wire::CMD_READ => m::CMD_FLAG_DF,
            wire::CMD_WRITE_ZEROES => wire::CMD_FLAG_NO_HOLE,
            wire::CMD_BLOCK_STATUS => m::CMD_FLAG_REQ_ONE,
            wire::CMD_WRITE | wire::CMD_TRIM | wire::CMD_FLUSH | m::CMD_CACHE => 0,
            other => {
                let why = format!("command {other} is not known");
                return Err(ServeError::invalid(why));
            }
        };
        if request.flags & !(known | m::CMD_FLAG_FUA) != 0 {
            let why = format!("flags {:#x} are not known", request.flags);
            return Err(ServeError::invalid(why));
        }
        let writes = matches!(
            request.command,
            wire::CMD_WRITE | wire::CMD_WRITE_ZEROES | wire::CMD_TRIM
        );
        if writes && self.export.is_read_only() {
            return Err(ServeError::read_only());
        }
        if request.command == wire::CMD_FLUSH {
            return Ok(());
        }
        if request.command == wire::CMD_READ && request.length > wire::MAX_PAYLOAD_BYTES {
            return Err(ServeError::invalid("a read of over 32 MiB"));
        }
        if request.command == wire::CMD_BLOCK_STATUS && (!self.allocation || request.length == 0) {
            return Err(ServeError::invalid("no context was agreed on, or no range"));
        }
        let end = request.offset.checked_add(u64::from(request.length));
        match end.is_some_and(|end| end <= self.export.size_bytes()) {
            true => Ok(()),
            false if request.command == wire::CMD_WRITE => {
                Err(ServeError::no_space("it reaches past the end of the disk"))
            }
            false => Err(ServeError::invalid("it reaches past the end of the disk")),
        }
    }

    fn nothing(&self, request: &Request) -> Answer {
        match request.command {
            wire::CMD_READ => Answer::Pieces(Vec::new()),
            _ => Answer::Done,
        }
    }

    async fn find(&self, request: &Request, data: Bytes) -> Result<Answer, ServeError> {
        let (offset, length) = (request.offset, u64::from(request.length));
        let export = &self.export;
        match request.command {
            wire::CMD_READ => {
                let pieces = export.read(offset, request.length).await?;
                return Ok(Answer::Pieces(pieces));
            }
            wire::CMD_BLOCK_STATUS => {
                let mut extents = export.extents(offset, length).await?;
                if request.flags & m::CMD_FLAG_REQ_ONE != 0 {
                    extents.truncate(1);
                }
                return Ok(Answer::Extents(extents));
            }
            wire::CMD_WRITE => export.write(offset, data).await?,
            wire::CMD_WRITE_ZEROES | wire::CMD_TRIM => export.write_zeroes(offset, length).await?,
            m::CMD_CACHE => export.prefetch(offset, length).await,
            _ => export.flush().await?,
        }
        if request.flags & m::CMD_FLAG_FUA != 0 && request.command != wire::CMD_FLUSH {
            export.flush().await?;
        }
        Ok(Answer::Done)
    }

    async fn send<W: AsyncWrite + Unpin>(
        &self,
        out: &mut BufWriter<W>,
        request: &Request,
        answer: Result<Answer, ServeError>,
    ) -> io::Result<()> {
        let cookie = request.cookie;
        match answer {
            Ok(Answer::Pieces(pieces)) if self.structured => {
                let pieces = match request.flags & m::CMD_FLAG_DF != 0 {
                    true => together(pieces),
                    false => pieces,
                };
                send_pieces(out, request, &pieces).await
            }
            Ok(Answer::Pieces(pieces)) => {
                out.write_all(&m::encode_simple(0, cookie)).await?;
                for piece in together(pieces) {
                    if let Piece::Data(bytes) = piece {
                        out.write_all(&bytes).await?;
                    }
                }
                Ok(())
            }
            Ok(Answer::Extents(extents)) => {
                let length = 4 + 8 * extents.len() as u32;
                let head = m::encode_chunk(true, wire::CHUNK_BLOCK_STATUS, cookie, length);
                out.write_all(&head).await?;
                out.write_all(&m::ALLOCATION_ID.to_be_bytes()).await?;
                for extent in extents {
                    let length = u32::try_from(extent.length).unwrap_or(u32::MAX);
                    out.write_all(&length.to_be_bytes()).await?;
                    out.write_all(&extent.flags.to_be_bytes()).await?;
                }
                Ok(())
            }
            Ok(Answer::Done) => out.write_all(&m::encode_simple(0, cookie)).await,
            Err(error) if self.structured => {
                let words = error.to_string();
                let words = &words.as_bytes()[..words.floor_char_boundary(wire::MAX_STRING_BYTES)];
                let length = 6 + words.len() as u32;
                let head = m::encode_chunk(true, wire::CHUNK_ERROR, cookie, length);
                out.write_all(&head).await?;
                out.write_all(&error.errno.to_be_bytes()).await?;
                out.write_all(&(words.len() as u16).to_be_bytes()).await?;
                out.write_all(words).await
            }
            Err(error) => out.write_all(&m::encode_simple(error.errno, cookie)).await,
        }
    }
}

async fn send_pieces<W: AsyncWrite + Unpin>(
    out: &mut BufWriter<W>,
    request: &Request,
    pieces: &[Piece],
) -> io::Result<()> {
    let Some(last) = pieces.len().checked_sub(1) else {
        let head = m::encode_chunk(true, wire::CHUNK_NONE, request.cookie, 0);
        return out.write_all(&head).await;
    };
    let mut at = request.offset;
    for (number, piece) in pieces.iter().enumerate() {
        let (kind, length) = match piece {
            Piece::Data(bytes) => (wire::CHUNK_OFFSET_DATA, 8 + bytes.len() as u32),
            Piece::Zeroes(_) => (wire::CHUNK_OFFSET_HOLE, 12),
        };
        let head = m::encode_chunk(number == last, kind, request.cookie, length);
        out.write_all(&head).await?;
        out.write_all(&at.to_be_bytes()).await?;
        match piece {
            Piece::Data(bytes) => out.write_all(bytes).await?,
            Piece::Zeroes(length) => out.write_all(&length.to_be_bytes()).await?,
        }
        at += piece.length();
    }
    Ok(())
}

/// All of a read in one piece, of data.
fn together(mut pieces: Vec<Piece>) -> Vec<Piece> {
    if matches!(&pieces[..], [] | [Piece::Data(_)]) {
        return pieces;
    }
    let length: u64 = pieces.iter().map(Piece::length).sum();
    let mut whole = Vec::with_capacity(length as usize);
    for piece in pieces.drain(..) {
        match piece {
            Piece::Data(bytes) => whole.extend_from_slice(&bytes),
            Piece::Zeroes(length) => whole.resize(whole.len() + length as usize, 0),
        }
    }
    vec![Piece::Data(whole.into())]
}
