//! What a process costs, from `/proc`.

use anyhow::{Context as _, Result};
use std::time::Duration;

/// Linux counts processor time for user space in hundredths of a second, whatever its own tick is.
const TICK: Duration = Duration::from_millis(10);

/// Processor time used so far and memory resident now, without the pages of the program itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) rss_kib: u64,
}

pub(super) fn usage(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("{path}: is --pid a running process?"))
    };
    parse(&read("stat")?, &read("status")?).with_context(|| format!("/proc/{pid}: not as expected"))
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The second field is the program's name in parentheses and may hold anything, blanks included.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let rss_kib = rss.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Usage { cpu: TICK * ticks, rss_kib })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_with_any_program_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 4 0 1 2 3";
        let status = "Name:\ta\nVmRSS:\t   9999 kB\nRssAnon:\t    5678 kB\nThreads:\t4\n";
        let expected = Usage { cpu: Duration::from_secs(3), rss_kib: 5_678 };
        assert_eq!(parse(stat, status), Some(expected));
        assert_eq!(parse("7 (a", status), None);
    }

    #[test]
    fn this_process_is_there_and_another_is_not() {
        assert!(usage(std::process::id()).unwrap().rss_kib > 0);
        assert!(usage(u32::MAX).unwrap_err().to_string().contains("is --pid a running process?"));
    }
}
