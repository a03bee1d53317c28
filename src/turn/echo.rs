//! How loud the bot comes back on the caller's line. Lag and loss of the echo are learnt from the
//! levels of what was played and of what is heard, 20 ms at a time; they tell how loud a frame may
//! be without anybody speaking. Until they are known the echo is taken to be late and loud.

/// The echo is looked for up to this late: 800 ms, the carrier's buffers included.
const LAGS: usize = 40;
/// Levels of the bot's voice that are kept.
const KEPT: usize = LAGS + TAIL;
/// A room goes on sounding, by so much less each frame.
const TAIL: usize = 6;
const TAIL_DB: f32 = 4.0;
/// Before anything is known.
const LOSS_AT_FIRST_DB: f32 = -20.0;
/// No echo is louder than this.
const LEAST_LOSS_DB: f32 = -6.0;
/// Below this level the bot is silent, and above the next its echo tells something.
const SILENT_DB: f32 = 20.0;
const LOUD_DB: f32 = 48.0;
/// What is this much louder than any echo so far is no echo, unless the levels rise and fall with
/// the bot's.
const LOUDER_DB: f32 = 5.0;
const SAME_SHAPE: f32 = 0.75;
/// What is no louder than this above the noise does not tell how loud an echo is, only that it is
/// not louder.
const ABOVE_FLOOR_DB: f32 = 6.0;
/// How alike the levels have to be for a lag to be believed, and over how many frames (1 s).
const ALIKE: f32 = 0.6;
const ENOUGH_FRAMES: f32 = 50.0;
/// Old frames count less and less: about 5 s are looked back on.
const MEMORY: f32 = 0.996;
/// The loss follows louder echoes at once and softer ones slowly: it is to be a bound.
const RISE: f32 = 0.06;
const FALL: f32 = 0.02;
const FALL_UNSURE: f32 = 0.005;
/// A pause within the echo says no more than this.
const MUCH_SOFTER_DB: f32 = 6.0;

/// The echo of one call.
#[derive(Clone, Debug)]
pub(super) struct Echo {
    /// Levels of what was played, the newest first.
    far: [f32; KEPT],
    shape: Shape,
    /// Loss where the lag is not known, and at the lag.
    loss_db: f32,
    loss_at_lag_db: f32,
}

impl Default for Echo {
    fn default() -> Echo {
        Echo {
            far: [0.0; KEPT],
            shape: Shape::default(),
            loss_db: LOSS_AT_FIRST_DB,
            loss_at_lag_db: LOSS_AT_FIRST_DB,
        }
    }
}

impl Echo {
    /// Takes a frame's level and the level of what was played meanwhile; how loud an echo could be
    /// in that frame.
    pub(super) fn hear(&mut self, level_db: f32, floor_db: f32, far_db: f32) -> f32 {
        self.far.copy_within(..KEPT - 1, 1);
        self.far[0] = far_db;
        let loudest = self.far[..LAGS].iter().fold(0.0f32, |most, &db| most.max(db));
        if loudest < SILENT_DB {
            return 0.0;
        }
        let lag = self.shape.lag();
        let at_lag = lag.map(|(lag, _)| self.around(lag));
        let bound = match at_lag {
            Some(far_db) => far_db + self.loss_at_lag_db,
            None => loudest + self.loss_db,
        };
        let alike = lag.map_or(0.0, |(_, alike)| alike);
        let noise = level_db < floor_db + ABOVE_FLOOR_DB;
        let may_rise =
            |heard: f32, loss_db: f32| !noise && (heard < loss_db + LOUDER_DB || alike > SAME_SHAPE);
        if loudest > LOUD_DB {
            let heard = level_db - loudest;
            let most = if may_rise(heard, self.loss_db) { LOSS_AT_FIRST_DB } else { self.loss_db };
            self.loss_db = follow(self.loss_db, heard, FALL_UNSURE, most);
        }
        if let Some(far_db) = at_lag.filter(|db| *db > LOUD_DB) {
            let heard = level_db - far_db;
            let most = if may_rise(heard, self.loss_at_lag_db) { LEAST_LOSS_DB } else { self.loss_at_lag_db };
            self.loss_at_lag_db = follow(self.loss_at_lag_db, heard, FALL, most);
        }
        if level_db < bound + LOUDER_DB || alike > SAME_SHAPE {
            self.shape.learn(&self.far, level_db);
        }
        bound.max(0.0)
    }

    /// The loudest that can be heard with this lag: it may end within a frame, and a room sounds on.
    fn around(&self, lag: usize) -> f32 {
        let from = lag.saturating_sub(1);
        let direct = self.far[from..=lag + 1].iter().fold(0.0f32, |most, &db| most.max(db));
        let tail = self.far[lag + 2..KEPT].iter().take(TAIL - 2).enumerate();
        tail.fold(direct, |most, (i, &db)| most.max(db - TAIL_DB * (i + 1) as f32))
    }
}

fn follow(loss_db: f32, heard: f32, fall: f32, most: f32) -> f32 {
    let off = (heard - loss_db).max(-MUCH_SOFTER_DB);
    (loss_db + if off > 0.0 { RISE } else { fall } * off).min(most)
}

/// How alike the levels of both sides are, for each lag: sums of a correlation.
#[derive(Clone, Debug)]
struct Shape {
    frames: f32,
    y: f32,
    yy: f32,
    x: [f32; LAGS],
    xx: [f32; LAGS],
    xy: [f32; LAGS],
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { frames: 0.0, y: 0.0, yy: 0.0, x: [0.0; LAGS], xx: [0.0; LAGS], xy: [0.0; LAGS] }
    }
}

impl Shape {
    fn learn(&mut self, far: &[f32; KEPT], level_db: f32) {
        let y = level_db;
        self.frames = MEMORY * self.frames + 1.0;
        self.y = MEMORY * self.y + y;
        self.yy = MEMORY * self.yy + y * y;
        for (lag, far_db) in far[..LAGS].iter().enumerate() {
            let x = far_db.max(SILENT_DB);
            self.x[lag] = MEMORY * self.x[lag] + x;
            self.xx[lag] = MEMORY * self.xx[lag] + x * x;
            self.xy[lag] = MEMORY * self.xy[lag] + x * y;
        }
    }

    /// The lag at which both are most alike, and how much, if they are.
    fn lag(&self) -> Option<(usize, f32)> {
        if self.frames < ENOUGH_FRAMES {
            return None;
        }
        let n = self.frames;
        let vy = self.yy - self.y * self.y / n;
        // All of them first, then the best: so the compiler takes several at a time.
        let alike: [f32; LAGS] = std::array::from_fn(|lag| {
            let vx = self.xx[lag] - self.x[lag] * self.x[lag] / n;
            (self.xy[lag] - self.x[lag] * self.y / n) / (vx * vy).max(1.0).sqrt()
        });
        let best = alike.into_iter().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        best.filter(|(_, alike)| *alike > ALIKE)
    }
}
