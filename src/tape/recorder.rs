//! Recording without ever waiting: a call fills a block in memory and hands it to its writer through
//! a bounded queue. When that is full, because the disk does not keep up, or the disk refuses, the
//! tape is cut there, says so at its end where that can still be written, and the call goes on.
//!
//! Blocks go out twice a second, so that this much is lost when the process is killed.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::entry::Entry;
use super::folder;
use super::header::Header;
use super::reel::{append, begin};
use crate::call::realtime::Request;
use crate::call::{Input, Output};
use crate::time::CallTime;
use crate::turn::Measured;

/// A block goes to the writer at this size, or at this age. Bots and models send what they say in bursts:
/// the more blocks wait, the longer the next one becomes, so that a burst alone does not fill the queue.
const BLOCK: usize = 8 * 1024;
const FLUSH: Duration = Duration::from_millis(500);
/// Blocks of one call that wait for the disk: some 16 s, or 4 MiB of a burst.
const BLOCKS: usize = 32;
/// Bytes of all calls that wait for the disk.
const MOST_WAITING: usize = 128 * 1024 * 1024;
/// Tapes that are written at once. Each write has a thread of its own, which stays for as long as there are others to
/// write, with an allocator's slack for each; and a disk that hangs must not take the threads of everybody else.
const AT_ONCE: usize = 4;
/// Calls of one name in one millisecond.
const NAMESAKES: u32 = 9;

/// Makes tapes in one folder.
#[derive(Clone)]
pub struct Tapes(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    waiting: AtomicUsize,
    /// Leave to touch the disk.
    disk: Semaphore,
    /// Tapes that are being written.
    open: AtomicUsize,
    done: Box<dyn Fn(Done) + Send + Sync>,
}

/// What became of a tape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub call_sid: String,
    pub stream_sid: String,
    pub path: PathBuf,
    pub bytes: u64,
    /// Why the rest of the call is missing; `None` if it is not.
    pub cut: Option<String>,
}

impl Tapes {
    /// `done` hears of each tape when it is complete, or cut.
    pub fn new(folder: &Path, done: impl Fn(Done) + Send + Sync + 'static) -> Tapes {
        Tapes(Arc::new(Shared {
            folder: folder.to_owned(),
            waiting: AtomicUsize::new(0),
            disk: Semaphore::const_new(AT_ONCE),
            open: AtomicUsize::new(0),
            done: Box::new(done),
        }))
    }

    /// Makes the folder, for us alone.
    pub fn prepare(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0.folder)
    }

    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Tapes that are not closed yet.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }

    /// Begins a tape. Needs a tokio runtime around it; the disk is touched by the tape's own task.
    pub fn start(&self, header: Header, now: SystemTime) -> Recorder {
        let (recorder, writer, blocks) = self.tape(header, now);
        tokio::spawn(writer.run(blocks));
        recorder
    }

    /// Both ends of a tape.
    fn tape(&self, header: Header, now: SystemTime) -> (Recorder, Writer, mpsc::Receiver<Piece>) {
        let (to, blocks) = mpsc::channel(BLOCKS);
        self.0.open.fetch_add(1, Ordering::SeqCst);
        let block = begin(&header);
        let writer = Writer {
            tapes: Open(self.0.clone()),
            name: folder::name(now, &header.call_sid),
            done: Done {
                call_sid: header.call_sid,
                stream_sid: header.stream_sid,
                path: self.0.folder.clone(),
                bytes: 0,
                cut: None,
            },
        };
        let mut recorder = Recorder {
            block,
            since: CallTime::ZERO,
            now: CallTime::ZERO,
            to: Some(to),
            packed: Vec::new(),
            tapes: self.0.clone(),
        };
        recorder.flush();
        (recorder, writer, blocks)
    }
}

/// Counts a tape as open while it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A block, or why there are no more.
enum Piece {
    Block(Vec<u8>),
    Cut(CallTime),
}

/// The call's end of its tape.
pub struct Recorder {
    block: Vec<u8>,
    /// When the block's first entry was made.
    since: CallTime,
    now: CallTime,
    /// `None` once the tape is cut.
    to: Option<mpsc::Sender<Piece>>,
    /// What was measured, as it stands on the tape; kept to be filled again.
    packed: Vec<u8>,
    tapes: Arc<Shared>,
}

impl Recorder {
    /// Audio of the caller, and what the call measured of it.
    pub fn heard(&mut self, payload: &[u8], timestamp_ms: Option<u64>, measured: &[Measured], now: CallTime) {
        self.now = now;
        let mut packed = std::mem::take(&mut self.packed);
        self.write(&Entry::heard(payload, timestamp_ms, measured, &mut packed));
        self.packed = packed;
    }

    pub fn input(&mut self, input: &Input<'_>, now: CallTime) {
        self.told(&Entry::of_input(input), now);
    }

    /// What a call is told, whoever conducts it.
    pub fn told(&mut self, entry: &Entry<'_>, now: CallTime) {
        self.now = now;
        self.write(entry);
    }

    pub fn tick(&mut self, now: CallTime) {
        self.told(&Entry::Tick, now);
    }

    /// What a call asks of the model that conducts it.
    pub fn request(&mut self, request: &Request) {
        if let Some(entry) = Entry::of_request(request) {
            self.write(&entry);
        }
    }

    pub fn output(&mut self, output: &Output) {
        if let Some(entry) = Entry::of_output(output) {
            self.write(&entry);
        }
    }

    fn write(&mut self, entry: &Entry<'_>) {
        let Some(to) = &self.to else { return };
        let most = BLOCK * (1 + BLOCKS - to.capacity());
        if self.block.is_empty() {
            self.since = self.now;
        }
        let now = self.now;
        append(&mut self.block, now, entry);
        if self.block.len() >= most || now.since(self.since) >= FLUSH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Some(to) = self.to.as_ref().filter(|_| !self.block.is_empty()) else { return };
        let len = self.block.len();
        let waits = self.tapes.waiting.fetch_add(len, Ordering::SeqCst);
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK + BLOCK / 4));
        // One place is kept for the word that the tape is cut.
        let fits = waits + len <= MOST_WAITING && to.capacity() > 1;
        let sent = if fits { to.try_send(Piece::Block(block)) } else { to.try_send(Piece::Cut(self.now)) };
        if !fits || sent.is_err() {
            self.tapes.waiting.fetch_sub(len, Ordering::SeqCst);
            self.block = Vec::new();
            self.to = None;
        }
        debug_assert!(!matches!(sent, Err(TrySendError::Full(_))), "one place is always kept");
    }
}

impl Drop for Recorder {
    /// The call is over.
    fn drop(&mut self) {
        self.write(&Entry::End);
        self.flush();
    }
}

/// The disk's end of a tape.
struct Writer {
    tapes: Open,
    name: String,
    done: Done,
}

impl Writer {
    async fn run(mut self, mut blocks: mpsc::Receiver<Piece>) {
        if let Err(error) = self.write(&mut blocks).await {
            self.done.cut = Some(error.to_string());
        }
        // What still waits will not be written.
        blocks.close();
        while let Some(piece) = blocks.recv().await {
            self.written(&piece);
        }
        let Writer { tapes, done, .. } = self;
        (tapes.0.done)(done);
        drop(tapes);
    }

    async fn write(&mut self, blocks: &mut mpsc::Receiver<Piece>) -> io::Result<()> {
        let (path, file) = self.create().await?;
        self.done.path = path;
        self.pump(tokio::fs::File::from_std(file), blocks).await
    }

    async fn pump(
        &mut self,
        mut file: impl AsyncWrite + Unpin,
        blocks: &mut mpsc::Receiver<Piece>,
    ) -> io::Result<()> {
        while let Some(piece) = blocks.recv().await {
            let written = match &piece {
                Piece::Block(block) => self.append(&mut file, block).await,
                Piece::Cut(at) => {
                    let why = "the disk does not keep up";
                    self.done.cut = Some(why.to_owned());
                    let mut last = Vec::new();
                    append(&mut last, *at, &Entry::Cut(why.into()));
                    self.append(&mut file, &last).await
                }
            };
            self.written(&piece);
            written?;
        }
        Ok(())
    }

    async fn append(&mut self, file: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
        let _turn = self.tapes.0.disk.acquire().await;
        file.write_all(bytes).await?;
        // tokio writes behind our back, and tells only here whether that went well.
        file.flush().await?;
        self.done.bytes += bytes.len() as u64;
        Ok(())
    }

    fn written(&self, piece: &Piece) {
        if let Piece::Block(block) = piece {
            self.tapes.0.waiting.fetch_sub(block.len(), Ordering::SeqCst);
        }
    }

    async fn create(&self) -> io::Result<(PathBuf, std::fs::File)> {
        let first = self.tapes.0.folder.join(&self.name);
        let create = move || {
            let mut path = first.clone();
            for number in 2..=NAMESAKES {
                match std::fs::File::options().append(true).create_new(true).mode(0o600).open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    opened => return opened.map(|file| (path, file)),
                }
                let stem = first.file_stem().unwrap_or_default().to_string_lossy();
                path = first.with_file_name(format!("{stem}-{number}{}", folder::ENDING));
            }
            Err(io::ErrorKind::AlreadyExists.into())
        };
        let _turn = self.tapes.0.disk.acquire().await;
        tokio::task::spawn_blocking(create).await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll};

    use tokio::io::AsyncReadExt as _;

    use super::super::Tape;
    use super::super::tests::{header, settings};
    use super::*;
    use crate::call::{Hearing, Mode};

    type Told = Arc<Mutex<Vec<Done>>>;

    fn tapes() -> (Tapes, Told) {
        let told = Told::default();
        let tell = told.clone();
        (Tapes::new(Path::new("nowhere"), move |done| tell.lock().unwrap().push(done)), told)
    }

    fn start(tapes: &Tapes) -> (Recorder, Writer, mpsc::Receiver<Piece>) {
        let header = header(&settings(Mode::Echo, Hearing::Utterances));
        tapes.tape(header, SystemTime::UNIX_EPOCH)
    }

    /// The caller's audio for so many seconds.
    fn talk(recorder: &mut Recorder, seconds: u64) {
        for frame in 0..seconds * 50 {
            let input = Input::Media { payload: &[0x90; 160], timestamp_ms: None };
            recorder.input(&input, CallTime::from_millis(frame * 20));
        }
    }

    #[tokio::test]
    async fn a_disk_that_hangs_cuts_the_tape_and_holds_nobody_up() {
        let (tapes, _) = tapes();
        let (mut recorder, mut writer, mut blocks) = start(&tapes);
        let (disk, mut head) = tokio::io::duplex(16);
        let pump = tokio::spawn(async move {
            let pumped = writer.pump(disk, &mut blocks).await;
            (pumped, writer)
        });
        talk(&mut recorder, 600);
        let waiting = tapes.0.waiting.load(Ordering::SeqCst);
        assert!(waiting <= BLOCKS * (BLOCK + 400), "{waiting} bytes wait");
        assert!(recorder.to.is_none() && recorder.block.is_empty());
        drop(recorder);
        // It wakes up: what waited is written, and then why there is no more.
        let mut written = Vec::new();
        head.read_to_end(&mut written).await.unwrap();
        let (pumped, writer) = pump.await.unwrap();
        assert!(pumped.is_ok());
        assert_eq!(writer.done.cut.as_deref(), Some("the disk does not keep up"));
        assert_eq!(writer.done.bytes, written.len() as u64);
        assert_eq!(tapes.0.waiting.load(Ordering::SeqCst), 0);
        let tape = Tape::read(&written).unwrap();
        assert!(tape.missing().unwrap().contains("the disk does not keep up"), "{:?}", tape.missing());
        assert!(tape.entries.len() > 500, "{} entries", tape.entries.len());
    }

    /// A file that counts how many are written, from a write to the end of its flush.
    struct Busy {
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
        flushing: bool,
    }

    impl AsyncWrite for Busy {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.most.fetch_max(1 + self.now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushing = !self.flushing;
            if self.flushing {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.now.fetch_sub(1, Ordering::SeqCst);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn few_tapes_are_written_at_once() {
        let (tapes, _) = tapes();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let pumped = (0..5 * AT_ONCE).map(|_| {
            let (mut recorder, mut writer, mut blocks) = start(&tapes);
            talk(&mut recorder, 3);
            let busy = Busy { now: now.clone(), most: most.clone(), flushing: false };
            async move { writer.pump(busy, &mut blocks).await }
        });
        for pumped in futures_util::future::join_all(pumped).await {
            pumped.unwrap();
        }
        assert_eq!((most.load(Ordering::SeqCst), now.load(Ordering::SeqCst)), (AT_ONCE, 0));
    }

    #[tokio::test]
    async fn a_minute_that_is_said_at_once_cuts_no_tape() {
        let (tapes, _) = tapes();
        let (mut recorder, mut writer, mut blocks) = start(&tapes);
        for _ in 0..3_000 {
            recorder.told(&Entry::BotAudio((&[0x90; 160][..]).into()), CallTime::from_millis(20));
        }
        drop(recorder);
        let mut written = Vec::new();
        writer.pump(&mut written, &mut blocks).await.unwrap();
        let tape = Tape::read(&written).unwrap();
        assert_eq!((tape.missing(), tape.entries.len()), (None, 3_001));
    }

    #[tokio::test]
    async fn a_disk_that_is_full_cuts_the_tape() {
        let (tapes, _) = tapes();
        let (mut recorder, mut writer, mut blocks) = start(&tapes);
        let (disk, mut head) = tokio::io::duplex(30_000);
        talk(&mut recorder, 2);
        let mut written = vec![0; 20_000];
        let read = async {
            head.read_exact(&mut written).await.unwrap();
            drop(head);
        };
        talk(&mut recorder, 4);
        let (pumped, ()) = tokio::join!(writer.pump(disk, &mut blocks), read);
        assert_eq!(pumped.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let tape = Tape::read(&written).unwrap();
        assert!(tape.missing().unwrap().starts_with("torn off"), "{:?}", tape.missing());
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_told_once() {
        let (tapes, told) = tapes();
        let (mut recorder, writer, blocks) = start(&tapes);
        assert_eq!(tapes.open(), 1);
        writer.run(blocks).await;
        talk(&mut recorder, 60);
        drop(recorder);
        let told = told.lock().unwrap();
        assert_eq!((told.len(), tapes.open(), tapes.0.waiting.load(Ordering::SeqCst)), (1, 0, 0));
        assert!(told[0].cut.as_deref().unwrap().contains("No such file"), "{told:?}");
    }
}
