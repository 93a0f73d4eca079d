//! What the server's processes cost, out of /proc.

use std::{fs, time::Duration};

/// Of `utime` and `stime` in /proc/PID/stat, see proc(5): USER_HZ, which is 100 on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// User and system time that all of them have spent.
pub fn cpu(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| TICK * ticks(*pid)).sum()
}

fn ticks(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name before may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap()
}
