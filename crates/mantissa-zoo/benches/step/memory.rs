//! The peak of resident memory of a few steps.

use std::fs;
use std::process::Command;

use super::variant::Variant;
use super::{Task, possible};

const STEPS: u64 = 3;

/// Measures each variant in a process of its own.
pub fn compare(task: &Task, names: &[&str], size: &str) {
    println!("\n{}; peak of resident memory", task.describe());
    println!("{:<22} {:>8} {:>22}", "step", "MiB", "ratio to Burn's f32");
    let mut reference = None;
    // Measuring for a plan takes memory of its own, which training under it does not.
    let names = names.iter().filter(|name| **name != "plan");
    for name in ["Burn"].iter().chain(names) {
        let peak = std::env::current_exe().and_then(|program| {
            Command::new(program)
                .args(["--peak-of", name, "--size", size])
                .args(["--batch", &task.batch_size.to_string()])
                .args(["--predict", &possible(task.predict)])
                .output()
        });
        let printed = peak.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let Some(bytes) = printed
            .ok()
            .and_then(|text| text.trim().parse::<f64>().ok())
        else {
            println!("{name:<22} not measured: no /proc/self/status here");
            continue;
        };
        let ratio = bytes / *reference.get_or_insert(bytes);
        println!(
            "{name:<22} {:>8.0} {ratio:>22.3}",
            bytes / f64::from(1 << 20)
        );
    }
}

/// Takes steps of one variant and prints the peak in bytes.
pub fn print_peak(task: &Task, name: &str) {
    let mut variant = match name {
        "Burn" => Variant::burn(task),
        recipe => Variant::mantissa(task, recipe),
    };
    let batches = task.batches();
    for step in 0..STEPS {
        variant.step(&batches.batch(step));
    }
    if let Some(bytes) = peak() {
        println!("{bytes}");
    }
}

fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
