//! The task behind a recogniser's handle: keeps a connection for as long as the call lasts, and
//! answers every question of the call, with or without one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::answer::seconds;
use super::connection::{Connection, Left};
use super::socket::Socket;
use super::tape::{Order, Position, Tape};
use super::words::Words;
use super::{Server, Source, Streaming, Target};
use crate::audio::BYTES_PER_MS;
use crate::call::{Failure, FailureKind, Input, Job, Posted, Service};
use crate::upstream::CallIds;
use crate::upstream::observed::{Notice, Tell, Watch};

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The answer to a question, since it was asked and since anything was last heard.
    pub(super) answer: Duration,
    /// The same, however much is heard meanwhile: after a break there is audio to catch up with.
    pub(super) longest: Duration,
    /// A recogniser that has said anything within this is not dead, and a question without an
    /// answer is about nothing.
    pub(super) alive: Duration,
    /// Without a connection, before a question fails.
    pub(super) while_down: Duration,
    /// Between two tries to connect: doubled from the first to the second.
    pub(super) pauses: (Duration, Duration),
    pub(super) goodbye: Duration,
    /// With nothing to send, before a word that keeps the connection. Deepgram gives up after 10 s
    /// and advises 3 to 5.
    pub(super) keep_alive: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            answer: ms(1000),
            longest: ms(3000),
            alive: ms(2000),
            while_down: ms(3000),
            pauses: (ms(100), ms(5000)),
            goodbye: ms(1000),
            keep_alive: ms(4000),
        }
    }
}

/// A recogniser that has taken the caller to have finished has said all there is, if the call asks
/// before this much more audio: the question follows from the statement.
const AT_ONCE: u64 = 300 * BYTES_PER_MS as u64;

/// Between two looks at a breaker that is open.
const SHORT_PAUSE: Duration = Duration::from_millis(500);

/// What waits for a call that does not listen; the oldest that is no answer goes first.
const MOST_WAITING: usize = 32;

/// Places in the audio are the same if they are no further apart: recognisers count in their own
/// frames.
pub(super) const SLACK: u64 = 100 * BYTES_PER_MS as u64;

pub(super) struct Listener {
    pub(super) streaming: Arc<Streaming>,
    /// Who is asked.
    pub(super) source: Arc<Source>,
    pub(super) tape: Arc<Tape>,
    ids: Arc<CallIds>,
    to: Sender<Posted>,
    notices: Tell,
    pub(super) words: Words,
    pub(super) questions: VecDeque<Question>,
    outbox: VecDeque<Input<'static>>,
    /// Since when there is no connection, while there is none.
    down_since: Instant,
    /// Why the last connection ended, or there was none.
    failure: Option<Failure>,
    /// Connections in a row of which no answer came.
    vain: usize,
    /// No recogniser will do for now, and waiting will not help.
    hopeless: bool,
}

/// An order of the call, and since when it waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) order: Order,
    pub(super) since: Instant,
    /// How many recognisers have had it in vain, and were not the last.
    pub(super) passed_on: usize,
}

/// Nobody listens any more.
pub(super) struct Over;

impl Listener {
    pub(super) fn new(
        streaming: Arc<Streaming>,
        source: Arc<Source>,
        tape: Arc<Tape>,
        ids: Arc<CallIds>,
        to: Sender<Posted>,
        notices: Tell,
    ) -> Self {
        Self {
            streaming,
            source,
            tape,
            ids,
            to,
            notices,
            words: Words::default(),
            questions: VecDeque::new(),
            outbox: VecDeque::new(),
            down_since: Instant::now(),
            failure: None,
            vain: 0,
            hopeless: false,
        }
    }

    pub(super) async fn run(mut self) {
        let _: Result<(), Over> = self.connections().await;
    }

    async fn connections(&mut self) -> Result<(), Over> {
        let streaming = Arc::clone(&self.streaming);
        let (first_pause, longest_pause) = streaming.patience.pauses;
        let mut pause = first_pause;
        let mut hopeless = true;
        for turn in streaming.sources.iter().enumerate().cycle() {
            let (number, source) = turn;
            self.source = Arc::clone(source);
            let failure = self.connection(&mut pause).await?;
            hopeless &= matches!(failure.kind, FailureKind::Http4xx | FailureKind::BreakerOpen);
            let next = streaming.sources.get(number + 1);
            self.hopeless = next.is_none() && hopeless;
            if let Some(next) = next {
                let Failure { upstream, kind, why } = &failure;
                let CallIds { call_sid, stream_sid, .. } = &*self.ids;
                let (service, kind) = (Service::Stt.as_str(), kind.as_str());
                tracing::warn!(
                    call_sid,
                    stream_sid,
                    service,
                    from = upstream,
                    to = next.upstream(),
                    kind,
                    why,
                    "FALLBACK"
                );
                (self.notices)(&Notice::FellBack { service: Service::Stt });
                self.failure = Some(failure);
                continue;
            }
            self.failure = Some(failure);
            hopeless = true;
            self.meanwhile(sleep(pause.mul_f64(spread()))).await?;
            // To look at a breaker costs nothing: who waits for one is back soon after it has closed.
            let by_breaker =
                self.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::BreakerOpen);
            let longest = if by_breaker { longest_pause.min(SHORT_PAUSE) } else { longest_pause };
            pause = (pause * 2).min(longest);
        }
        Ok(())
    }

    /// Keeps a connection to one recogniser for as long as it works.
    async fn connection(&mut self, pause: &mut Duration) -> Result<Failure, Over> {
        let source = Arc::clone(&self.source);
        let (target, patience) = (&source.target, self.streaming.patience);
        let ids = Arc::clone(&self.ids);
        loop {
            let mut watch = Watch::new(&self.notices, source.upstream(), Service::Stt, patience.longest);
            watch.again(self.vain >= self.streaming.sources.len());
            let asked = source.health.turn().map(|ticket| {
                let server = ticket.server();
                watch.asks(ticket);
                target.server(server)
            });
            let limit = self.limit();
            let connecting = async {
                let server = asked?;
                let within = limit.unwrap_or(Duration::MAX);
                timeout(within, Socket::connect(target, server, ids.trace.as_ref())).await.unwrap_or_else(
                    |_| {
                        let why = format!("no WebSocket within fallback_after = {}", seconds(within));
                        Err(target.failure(&server.shown, FailureKind::Timeout, "the vendor", &why))
                    },
                )
            };
            let failure = match self.meanwhile(connecting).await? {
                Err(failure) => failure,
                Ok(socket) => {
                    watch.first_byte();
                    let mut connection = Connection::new(socket, &source.wire, self.tape.span().0);
                    let left = self.listen(&mut connection, &mut watch).await;
                    self.down_since = Instant::now();
                    if connection.has_answered() {
                        *pause = patience.pauses.0;
                    }
                    match left {
                        Left::Over => {
                            watch.ok();
                            connection.close(Some(source.wire.close()), patience.goodbye).await;
                            return Err(Over);
                        }
                        Left::Done => {
                            watch.ok();
                            tokio::spawn(connection.close(None, patience.goodbye));
                            continue;
                        }
                        Left::Lost(failure) => failure,
                    }
                }
            };
            self.vain += 1;
            watch.failed(&failure);
            return Ok(failure);
        }
    }

    /// How long a recogniser has to say anything, where there is another.
    fn limit(&self) -> Option<Duration> {
        (self.streaming.sources.len() > 1).then_some(self.streaming.after)
    }

    /// How long the first answer may take.
    pub(super) fn first_answer(&self) -> Duration {
        let usual = self.source.target.first_answer();
        self.limit().map_or(usual, |limit| usual.min(limit))
    }

    /// The first question goes to another recogniser, if there is one that it has not been put to.
    pub(super) fn pass_on(&mut self) -> bool {
        let others = self.streaming.sources.len() - 1;
        let Some(question) = self.questions.front_mut().filter(|question| question.passed_on < others) else {
            return false;
        };
        question.passed_on += 1;
        true
    }

    /// Waits for something while there is no connection.
    async fn meanwhile<T>(&mut self, something: impl Future<Output = T>) -> Result<T, Over> {
        tokio::pin!(something);
        loop {
            self.take_orders()?;
            let due = self.answer_without_connection();
            tokio::select! {
                done = &mut something => return Ok(done),
                () = self.tape.woken() => {}
                sent = send_first(&self.to, &mut self.outbox), if !self.outbox.is_empty() => sent?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Answers what can be answered, or cannot be any more; and says when the next question cannot.
    fn answer_without_connection(&mut self) -> Option<Instant> {
        loop {
            self.answer_what_is_known();
            let question = *self.questions.front()?;
            // However often the connection comes and goes meanwhile, a question waits only once.
            let down_since = self.down_since.min(question.since);
            let due = question.since.max(down_since + self.streaming.patience.while_down);
            if question.order.utterance.is_none() {
                self.answer();
            } else if self.hopeless || due <= Instant::now() {
                let failure = self.failure.clone().unwrap_or_else(|| {
                    let why = format!("no connection within {}", seconds(self.streaming.patience.while_down));
                    let target = &self.source.target;
                    target.failure(&target.server(0).shown, FailureKind::Connect, "the network", &why)
                });
                self.fail(failure);
            } else {
                return Some(due);
            }
        }
    }

    /// Serves the call over a connection.
    async fn listen(&mut self, connection: &mut Connection, watch: &mut Watch) -> Left {
        let mut works = false;
        loop {
            if !works && connection.has_answered() {
                works = true;
                (self.vain, self.hopeless) = (0, false);
                watch.again(false);
                watch.works();
            }
            if self.take_orders().is_err() {
                return Left::Over;
            }
            if !connection.is_asked() {
                self.answer_what_is_known();
            }
            connection.feed(self);
            let due = connection.due(self);
            tokio::select! {
                event = connection.socket.next() => {
                    if let Some(left) = connection.happened(event, self) {
                        return left;
                    }
                }
                () = self.tape.woken() => {}
                sent = send_first(&self.to, &mut self.outbox), if !self.outbox.is_empty() => {
                    if sent.is_err() {
                        return Left::Over;
                    }
                }
                () = sleep_until(due) => {
                    if let Some(left) = connection.overdue(self) {
                        return left;
                    }
                }
            }
        }
    }

    fn take_orders(&mut self) -> Result<(), Over> {
        while let Some(order) = self.tape.next_order() {
            self.questions.push_back(Question { order, since: Instant::now(), passed_on: 0 });
        }
        if self.tape.is_over() { Err(Over) } else { Ok(()) }
    }

    /// Answers questions about audio with which the recogniser is done already.
    fn answer_what_is_known(&mut self) {
        while let Some(Question { order, .. }) = self.questions.front() {
            let (done, _) = self.tape.span();
            let ended = self.words.ended_at.filter(|_| order.utterance.is_some());
            if ended.is_some_and(|ended| order.at.saturating_sub(ended) <= AT_ONCE) {
                // What came after the end is not known yet: it is kept for the next utterance.
                self.say_transcript();
            } else if done + SLACK >= order.at && !self.words.has_guess() {
                self.answer();
            } else {
                return;
            }
        }
    }

    /// Answers the first question with what there is; its audio is done with.
    pub(super) fn answer(&mut self) {
        if let Some(Question { order, .. }) = self.questions.front() {
            self.tape.forget(order.at);
            self.say_transcript();
        }
    }

    fn say_transcript(&mut self) {
        let text = self.words.take();
        if let Some(utterance) = self.questions.pop_front().and_then(|question| question.order.utterance) {
            self.tell(Input::Transcript { utterance, text });
        }
    }

    /// The first question cannot be answered. The caller will be asked to say it again.
    pub(super) fn fail(&mut self, failure: Failure) {
        let Some(Question { order, .. }) = self.questions.pop_front() else { return };
        self.words.take();
        self.tape.forget(order.at);
        if let Some(utterance) = order.utterance {
            self.tell(Input::Failed { job: Job::Transcribe { utterance }, failure });
        }
    }

    fn tell(&mut self, input: Input<'static>) {
        if self.outbox.len() >= MOST_WAITING {
            let is_answer =
                |input: &Input<'_>| matches!(input, Input::Transcript { .. } | Input::Failed { .. });
            let oldest = self.outbox.iter().position(|input| !is_answer(input)).unwrap_or(0);
            self.outbox.remove(oldest);
        }
        self.outbox.push_back(input);
    }

    /// The words have changed.
    pub(super) fn tell_partial(&mut self) {
        if self.questions.front().is_some_and(|question| question.order.utterance.is_none()) {
            return;
        }
        if let Some(text) = self.words.news() {
            // Only the latest matters to a call that is slow to listen.
            if matches!(self.outbox.back(), Some(Input::Partial { .. })) {
                self.outbox.pop_back();
            }
            self.tell(Input::Partial { text });
        }
    }

    /// The recogniser takes the caller to have finished.
    pub(super) fn tell_end(&mut self) {
        if self.words.is_empty() || self.words.ended_at.is_some() {
            return;
        }
        let (_, end): (Position, Position) = self.tape.span();
        self.words.ended_at = Some(end);
        if self.questions.is_empty() && !matches!(self.outbox.back(), Some(Input::SpeechFinal)) {
            self.tell(Input::SpeechFinal);
        }
    }
}

/// From a half to one: calls that lost their recogniser together do not come back together.
fn spread() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    0.5 + (RandomState::new().hash_one(()) % 1000) as f64 / 2000.0
}

/// Hands the call the next of what there is to say, when it has room.
async fn send_first(to: &Sender<Posted>, outbox: &mut VecDeque<Input<'static>>) -> Result<(), Over> {
    let room = to.reserve().await.map_err(|_| Over)?;
    if let Some(input) = outbox.pop_front() {
        room.send(Box::new(input));
    }
    Ok(())
}

impl Target {
    /// The server whose turn it is.
    fn server(&self, turn: usize) -> &Server {
        &self.servers[turn % self.servers.len()]
    }

    /// A failure of one of its servers, and whose it is to mend.
    pub(in crate::upstream) fn failure(
        &self,
        shown: &str,
        kind: FailureKind,
        owner: &str,
        why: &str,
    ) -> Failure {
        Failure { upstream: self.upstream.name.clone(), kind, why: format!("{owner}: GET {shown}: {why}") }
    }
}
