//! Reads and lists one directory from our NFS service and from nfs-ganesha with libnfs's tools, in one
//! run, and prints seconds and ratios.
//! Must not know: private parts of the service.
//! Spec: the bar is nfs-ganesha's time or less.
//!
//! `cargo bench -p gt-netboot --bench nfs [small]`, as root: ganesha's VFS opens files by handle. It runs in a
//! network and mount namespace of its own, for ganesha insists on an rpcbind. `TMPDIR` says where the
//! files lie.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gt_netboot::nfs::memory::MemoryExport;
use gt_netboot::nfs::{Denied, Event, Export, ExportId, HighPorts, Host, Ports, Server, Sockets};
use gt_netboot::site::{Mac, Node, Serial, Site};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const BIG: usize = 100_000_000;
const SMALL: usize = 300;
/// 54 directories of 50 entries: as many as the root that earlier servers were measured with.
const DIRS: usize = 54;
/// The quickest counts: the others have met other work of the machine.
const ROUNDS: usize = 7;
/// Set in the process that runs inside the namespaces.
const INSIDE: &str = "GT_BENCH_NFS_INSIDE";

const OURS: Ports = Ports { nfs: 12049, mount: 12050, portmap: 12111 };
const GANESHA: Ports = Ports { nfs: 22049, mount: 22050, portmap: 111 };

fn main() -> Fallible<()> {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let me = std::env::current_exe()?;
    let script = "ip link set lo up && mount -t tmpfs tmpfs /run && exec \"$@\"";
    let status = Command::new("unshare")
        .args(["-nm", "sh", "-c", script, "sh"])
        .arg(me)
        .args(std::env::args().skip(1))
        .env(INSIDE, "1")
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("not run: this needs root, for unshare -nm and for ganesha".into())
    }
}

fn inside() -> Fallible<()> {
    let dir = TempDir::new()?;
    let files = dir.0.join("files");
    make(&files)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let stop = serve(&runtime, &files)?;
    let peer = Ganesha::start(&dir.0, &files).map_err(|e| println!("not run: nfs-ganesha: {e}")).ok();
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    println!("{:34} {:>9} {:>9} {:>7}", "seconds, best of 7", "ours", "ganesha", "ratio");
    let targets = [
        Target { path: "/fenn".to_owned(), ports: OURS },
        Target { path: files.display().to_string(), ports: GANESHA },
    ];
    let targets = &targets[..if peer.is_some() { 2 } else { 1 }];
    for (name, steps, work) in WORK.into_iter().filter(|(name, ..)| asked.iter().all(|a| name.contains(a))) {
        match measure(targets, steps, work)?[..] {
            [ours, theirs] => println!("{name:34} {ours:>9.3} {theirs:>9.3} {:>7.2}", ours / theirs),
            ref alone => println!("{name:34} {:>9.3?} {:>9} {:>7}", alone, "-", "-"),
        }
    }
    stop.cancel();
    Ok(())
}

fn make(files: &Path) -> Fallible<()> {
    fs::create_dir_all(files.join("small"))?;
    fs::write(files.join("big"), (0..BIG).map(|i| (i / 3) as u8).collect::<Vec<_>>())?;
    for n in 0..SMALL {
        fs::write(files.join(format!("small/{n}")), vec![n as u8; 3000])?;
    }
    for dir in 0..DIRS {
        let dir = files.join(format!("tree/{dir}"));
        fs::create_dir_all(&dir)?;
        for n in 0..50 {
            fs::write(dir.join(format!("entry-of-usual-length-{n}")), b"x")?;
        }
    }
    Ok(())
}

/// One server as a client sees it.
struct Target {
    path: String,
    ports: Ports,
}

impl Target {
    fn url(&self, path: &str) -> String {
        let Ports { nfs, mount, .. } = self.ports;
        format!("nfs://127.0.0.1{}{path}?version=3&nfsport={nfs}&mountport={mount}", self.path)
    }
}

type Work = fn(&Target, usize) -> Fallible<()>;

/// Name, steps, and what one step does.
const WORK: [(&str, usize, Work); 4] = [
    ("nfs-cat of 100 MB", 1, |target, _| run(Command::new("nfs-cat").arg(target.url("/big")))),
    ("nfs-cp of 100 MB", 1, |target, _| {
        // It does not write over a file. /run is memory here.
        let _ = fs::remove_file("/run/copy");
        run(Command::new("nfs-cp").arg(target.url("/big")).arg("/run/copy"))
    }),
    ("nfs-cat of 300 small files", SMALL, |target, n| {
        run(Command::new("nfs-cat").arg(target.url(&format!("/small/{n}"))))
    }),
    ("nfs-ls -R of 3,000 entries", 1, |target, _| run(Command::new("nfs-ls").arg("-R").arg(target.url("")))),
];

/// Seconds that each target needs for all steps, of each step the quickest round. The targets take
/// turns at each step, so that other work of the machine hits all alike; and a file is met again only
/// after all the others, as in a real walk.
fn measure(targets: &[Target], steps: usize, work: Work) -> Fallible<Vec<f64>> {
    let mut best = vec![vec![f64::MAX; steps]; targets.len()];
    for _ in 0..ROUNDS {
        for step in 0..steps {
            for (target, best) in targets.iter().zip(&mut best) {
                let start = Instant::now();
                work(target, step)?;
                best[step] = best[step].min(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(best.iter().map(|best| best.iter().sum()).collect())
}

fn run(command: &mut Command) -> Fallible<()> {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

struct OneNode {
    site: Arc<Site>,
    export: Arc<MemoryExport>,
}

impl Host for OneNode {
    fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site)
    }

    fn mount(&self, _node: &str) -> Result<Arc<dyn Export>, Denied> {
        Ok(Arc::<MemoryExport>::clone(&self.export))
    }

    fn export(&self, node: &str, _id: ExportId) -> Result<Arc<dyn Export>, Denied> {
        self.mount(node)
    }

    fn event(&self, _event: Event) {}
}

fn serve(runtime: &tokio::runtime::Runtime, files: &Path) -> Fallible<CancellationToken> {
    let address = Ipv4Addr::LOCALHOST;
    let site = Site {
        server: address,
        netmask: Ipv4Addr::new(255, 0, 0, 0),
        gateway: None,
        dns: vec![],
        domain: String::new(),
        nodes: vec![Node { name: "fenn".to_owned(), address, mac: Mac([2; 6]), serial: Serial(1) }],
    };
    let export = Arc::new(MemoryExport::load(ExportId([1; 16]), files)?);
    let host = Arc::new(OneNode { site: Arc::new(site), export });
    let nfs = vec![runtime.block_on(TcpListener::bind((address, OURS.nfs)))?];
    let mount = vec![runtime.block_on(TcpListener::bind((address, OURS.mount)))?];
    let stop = CancellationToken::new();
    let server = Server::new(host, &[1; 32], OURS, HighPorts::Trusted);
    runtime.spawn(server.run(Sockets { nfs, mount, ..Sockets::default() }, stop.clone()));
    Ok(stop)
}

/// rpcbind and ganesha, ended with the value.
struct Ganesha(Vec<Child>);

impl Ganesha {
    fn start(dir: &Path, files: &Path) -> Fallible<Ganesha> {
        let config = dir.join("ganesha.conf");
        let Ports { nfs, mount, .. } = GANESHA;
        fs::write(
            &config,
            format!(
                "NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = {nfs}; MNT_Port = {mount}; Enable_NLM = false;\n\
                 Enable_RQUOTA = false; Enable_UDP = false; }}\n\
                 EXPORT {{ Export_Id = 1; Path = {path}; Pseudo = /x; Protocols = 3; Transports = TCP;\n\
                 Access_Type = RO; Squash = No_Root_Squash; SecType = sys; FSAL {{ Name = VFS; }} }}\n",
                path = files.display()
            ),
        )?;
        let mut running = Ganesha(vec![]);
        running.0.push(Command::new("rpcbind").args(["-f", "-w"]).stderr(Stdio::null()).spawn()?);
        wait_for(|| Path::new("/run/rpcbind.sock").exists())?;
        let log = dir.join("ganesha.log");
        let mut ganesha = Command::new("ganesha.nfsd");
        ganesha.arg("-F").arg("-f").arg(&config).arg("-L").arg(&log).arg("-p").arg(dir.join("ganesha.pid"));
        running.0.push(ganesha.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let target = Target { path: files.display().to_string(), ports: GANESHA };
        wait_for(|| run(Command::new("nfs-ls").arg(target.url(""))).is_ok())
            .map_err(|e| format!("{e}\n{}", fs::read_to_string(&log).unwrap_or_default()))?;
        Ok(running)
    }
}

impl Drop for Ganesha {
    fn drop(&mut self) {
        for child in self.0.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_for(ready: impl Fn() -> bool) -> Fallible<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        if Instant::now() > deadline {
            return Err("not ready after 30 s".into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A directory that goes with the value.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Fallible<TempDir> {
        let dir = std::env::temp_dir().join(format!("gt-bench-nfs-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(TempDir(dir))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
