//! What a network does to a connection, and the dice that say which of it: the same seed, the same troubles.

use std::time::Duration;

/// Splitmix64: what falls depends on the seed alone.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `0` to `below - 1`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.throw() % below.max(1)
    }

    pub fn ms(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.below(below))
    }

    /// Small numbers as often as large ones: what is special happens at the beginning of a connection.
    fn place(&mut self) -> usize {
        let magnitude = 4 + self.below(13) as u32;
        self.below(1 << magnitude) as usize
    }
}

/// Towards the server, or back from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    There,
    Back,
}

/// What is wrong with a connection. `at` is the byte at which it happens, counted on its `way`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// Everything takes so much longer, both ways.
    Delay(Duration),
    /// Now and then a packet is lost, and what comes behind it waits until it was sent again.
    Loss {
        way: Way,
        every: usize,
        pause: Duration,
    },
    /// One message in so many is overtaken by the next.
    Reorder {
        way: Way,
        one_in: u64,
    },
    /// The connection ends: by a reset, or as if on purpose.
    Cut {
        way: Way,
        at: usize,
        reset: bool,
    },
    /// Nothing comes through any more, and neither side is told.
    HalfOpen {
        way: Way,
        at: usize,
    },
    /// The other side reads a few kilobytes a second.
    SlowReader(Way),
    /// A bit is another one.
    Flip {
        way: Way,
        at: usize,
        bit: u8,
    },
}

impl Trouble {
    /// One call in four has none.
    pub fn fallen(dice: &mut Dice) -> Trouble {
        let way = if dice.below(2) == 0 { Way::There } else { Way::Back };
        match dice.below(12) {
            0 => Trouble::Delay(dice.ms(400)),
            1 => Trouble::Loss { way, every: 500 + dice.place(), pause: dice.ms(1_500) },
            2 => Trouble::Reorder { way, one_in: 2 + dice.below(20) },
            3 => Trouble::Cut { way, at: dice.place(), reset: true },
            4 => Trouble::Cut { way, at: dice.place(), reset: false },
            5 => Trouble::HalfOpen { way, at: dice.place() },
            6 => Trouble::SlowReader(way),
            7 | 8 => Trouble::Flip { way, at: dice.place(), bit: dice.below(8) as u8 },
            _ => Trouble::None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Trouble::None => "none",
            Trouble::Delay(_) => "delay",
            Trouble::Loss { .. } => "loss",
            Trouble::Reorder { .. } => "reorder",
            Trouble::Cut { reset: true, .. } => "reset",
            Trouble::Cut { .. } => "closed",
            Trouble::HalfOpen { .. } => "half-open",
            Trouble::SlowReader(_) => "slow reader",
            Trouble::Flip { .. } => "bit flip",
        }
    }
}
