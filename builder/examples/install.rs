//! Installs the packages of lists (`name version arch sha256 path essential` a line) one list over
//! the other, and prints what took how long and what came out: for measuring and comparing.
//! Must not know: anything but the public interface.
//! Spec: none.

use std::path::Path;
use std::time::Instant;

use gt_image::io::progress::{Mode, Progress};
use gt_image::layer::packages::{Install, LocalDeb, Seed, install, sandbox};
use gt_image::store::Store;
use gt_image::tree::{Meta, Time, Tree, dump};

const EPOCH: i64 = 1_763_000_000;

fn main() -> anyhow::Result<()> {
    sandbox::maybe_enter();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [store, lists @ ..] = args.as_slice() else { anyhow::bail!("usage: install STORE LIST…") };
    let store = Store::open(Path::new(store))?;
    let progress = Progress::new(Mode::Plain);
    let mut tree = Tree::new(Meta::root_owned(0o755, Time::seconds(EPOCH)));
    for list in lists {
        let debs = read_list(&std::fs::read_to_string(list)?)?;
        let begun = Instant::now();
        let request = Install {
            store: &store,
            below: &tree,
            debs: &debs,
            seed: &Seed::default(),
            epoch: EPOCH,
            architecture: "arm64",
            progress: &progress,
        };
        let (made, log) = install(&request)?;
        let seconds = begun.elapsed().as_secs_f64();
        let mut slow: Vec<_> = log.iter().collect();
        slow.sort_by_key(|run| std::cmp::Reverse(run.millis));
        for run in slow.iter().take(30) {
            println!("{:8} ms, cpu {:6} ms  {} {}", run.millis, run.cpu, run.package, run.script);
        }
        let scripts: u64 = log.iter().filter(|r| !r.package.is_empty()).map(|r| r.millis).sum();
        let cpu: u64 = log.iter().map(|r| r.cpu).sum();
        println!(
            "{list}: {seconds:.1} s, scripts {:.1} s, cpu {:.1} s, {}",
            scripts as f64 / 1e3,
            cpu as f64 / 1e3,
            dump::digest(&made)
        );
        if let Ok(dir) = std::env::var("LOG") {
            let name = Path::new(list).file_name().unwrap_or_default().to_string_lossy().into_owned();
            std::fs::write(format!("{dir}/{name}.dump"), dump::write(&made))?;
            let text: String =
                log.iter().map(|r| format!("== {} {}\n{}", r.package, r.script, r.output)).collect();
            std::fs::write(format!("{dir}/{name}.log"), text)?;
        }
        tree = made;
    }
    Ok(())
}

fn read_list(text: &str) -> anyhow::Result<Vec<LocalDeb>> {
    let mut debs = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let [name, version, architecture, sha256, path, essential] =
            line.split_whitespace().collect::<Vec<_>>()[..]
        else {
            anyhow::bail!("`{line}` has not six words")
        };
        debs.push(LocalDeb {
            name: name.into(),
            version: version.into(),
            architecture: architecture.into(),
            sha256: sha256.parse()?,
            path: path.into(),
            essential: essential == "1",
        });
    }
    Ok(debs)
}
