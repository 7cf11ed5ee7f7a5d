//! `cargo xtask dist`: a tarball and a Debian package of the release binary, with manual pages, completion for
//! shells and the systemd unit. Not here: the archives' formats (`archive`), what the pages say (the binary itself
//! prints them from its tree of commands).

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::archive::{Tar, ar};

const HELP: &str = "\
cargo xtask dist [--bin PATH] [--out DIR]

  --bin PATH  the binary to pack (default: ETCH_BIN, or a release build)
  --out DIR   where the archives go (default: target/dist)
";

/// The version of all crates.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The names of etcd's programs. They lie apart, for whoever puts them into the path: a package must not take the
/// place of the distribution's own.
const ETCD_NAMES: &[&str] = &["etcd", "etcdctl", "etcdutl"];
const ETCD_DIR: &str = "lib/etch/bin";

const UNIT: &str = "lib/systemd/system/etch.service";

/// One thing in a package, by its path below `/usr`.
enum Item {
    File { path: String, mode: u32, content: Vec<u8> },
    Link { path: String, target: String },
}

/// Makes both.
pub fn run(root: &Path, args: &[String]) -> Result<(), String> {
    let (mut bin, mut out) = (env::var_os("ETCH_BIN").map(PathBuf::from), None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().map(PathBuf::from).ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--bin" => bin = Some(value()?),
            "--out" => out = Some(value()?),
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            other => return Err(format!("unknown flag `{other}`\n\n{HELP}")),
        }
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let bin = match bin {
        Some(bin) => bin,
        None => {
            crate::cargo(root, &["build", "--release"])?;
            target.join("release").join("etch")
        }
    };
    let out = out.unwrap_or_else(|| target.join("dist"));
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let items = items(root, &bin)?;
    let time = env::var("SOURCE_DATE_EPOCH").ok().and_then(|t| t.parse().ok()).unwrap_or(0);
    let system = format!("{}-{}", env::consts::OS, env::consts::ARCH);
    let tarball = tarball(root, &items, &format!("etch-{VERSION}-{system}"), time)?;
    write(&out.join(format!("etch-{VERSION}-{system}.tar.gz")), &tarball)?;
    let arch = debian_arch();
    let deb = deb(root, &items, arch, time)?;
    write(&out.join(format!("etch_{VERSION}_{arch}.deb")), &deb)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("{} ({} bytes)", path.display(), bytes.len());
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// All that a package has in it.
fn items(root: &Path, bin: &Path) -> Result<Vec<Item>, String> {
    let mut items = vec![file("bin/etch", 0o755, read(bin)?)];
    for name in ["etchctl", "etchutl"] {
        items.push(link(&format!("bin/{name}"), "etch"));
        let asks = |words: &[&str]| output(bin, name, words);
        items.push(page(name, &asks(&["__man"])?)?);
        for (shell, path) in [
            ("bash", format!("share/bash-completion/completions/{name}")),
            ("zsh", format!("share/zsh/vendor-completions/_{name}")),
            ("fish", format!("share/fish/vendor_completions.d/{name}.fish")),
        ] {
            items.push(file(&path, 0o644, asks(&["completion", shell])?));
        }
    }
    items.push(page("etch", &server_page(&output(bin, "etch", &["--help"])?))?);
    for name in ETCD_NAMES {
        items.push(link(&format!("{ETCD_DIR}/{name}"), "../../../bin/etch"));
    }
    let unit = read(&root.join("packaging").join("etch.service"))?;
    items.push(file(UNIT, 0o644, unit));
    for name in ["LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md"] {
        items.push(file(&format!("share/doc/etch/{name}"), 0o644, read(&root.join(name))?));
    }
    Ok(items)
}

fn file(path: &str, mode: u32, content: Vec<u8>) -> Item {
    Item::File { path: path.to_owned(), mode, content }
}

fn link(path: &str, target: &str) -> Item {
    Item::Link { path: path.to_owned(), target: target.to_owned() }
}

/// What the binary prints when it is called by a name.
fn output(bin: &Path, name: &str, words: &[&str]) -> Result<Vec<u8>, String> {
    let bin = bin.canonicalize().map_err(|e| format!("{}: {e}", bin.display()))?;
    let dir = env::temp_dir().join(format!("etch-dist-{}-{name}", std::process::id()));
    let run = || {
        fs::create_dir_all(&dir)?;
        let called = dir.join(name);
        symlink(&bin, &called)?;
        Command::new(&called).args(words).output()
    };
    let ran = run();
    let _ = fs::remove_dir_all(&dir);
    let ran = ran.map_err(|e| format!("{}: {e}", bin.display()))?;
    if !ran.status.success() || ran.stdout.is_empty() {
        return Err(format!("{name} {} says nothing of use: {}", words.join(" "), ran.status));
    }
    Ok(ran.stdout)
}

/// The server's page: its help, as it is.
fn server_page(help: &[u8]) -> Vec<u8> {
    let help = String::from_utf8_lossy(help).replace('\\', "\\e").replace('-', "\\-");
    let lines = help.lines().map(|line| {
        if line.starts_with(['.', '\'']) { format!("\\&{line}\n") } else { format!("{line}\n") }
    });
    let about = "a distributed, reliable key\\-value store behind etcd's API";
    let head = format!(".TH ETCH 1\n.SH NAME\netch \\- {about}\n.SH SYNOPSIS\n.B etch\n[flags]\n");
    format!("{head}.SH OPTIONS\n.nf\n{}.fi\n", lines.collect::<String>()).into_bytes()
}

fn page(name: &str, page: &[u8]) -> Result<Item, String> {
    let packed = gzip(page).map_err(|e| e.to_string())?;
    Ok(file(&format!("share/man/man1/{name}.1.gz"), 0o644, packed))
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Write as _;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(bytes)?;
    out.finish()
}

fn pack(items: &[Item], below: &str, tar: &mut Tar) -> Result<(), String> {
    for item in items {
        let packed = match item {
            Item::File { path, mode, content } => {
                tar.file(&format!("{below}{path}"), *mode, content)
            }
            Item::Link { path, target } => tar.link(&format!("{below}{path}"), target),
        };
        packed.map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn tarball(root: &Path, items: &[Item], name: &str, time: u64) -> Result<Vec<u8>, String> {
    let mut tar = Tar::new(time);
    for file in ["LICENSE", "README.md"] {
        let content = read(&root.join(file))?;
        tar.file(&format!("{name}/{file}"), 0o644, &content).map_err(|e| e.to_string())?;
    }
    pack(items, &format!("{name}/"), &mut tar)?;
    tar.finish().map_err(|e| e.to_string())
}

/// Debian's name for this processor.
fn debian_arch() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn deb(root: &Path, items: &[Item], arch: &str, time: u64) -> Result<Vec<u8>, String> {
    let sizes = items.iter().map(|item| match item {
        Item::File { content, .. } => content.len().div_ceil(1024),
        Item::Link { .. } => 1,
    });
    let control = format!(
        "Package: etch\nVersion: {VERSION}\nArchitecture: {arch}\nMaintainer: The etch authors <etch@localhost>\n\
         Installed-Size: {}\nDepends: libc6\nSection: database\nPriority: optional\n\
         Description: key-value store that stands in for etcd\n \
         The server, etchctl and etchutl in one binary, on etcd's wire and in etcd's files.\n \
         Under /usr/lib/etch/bin it has the names of etcd's own programs.\n",
        sizes.sum::<usize>()
    );
    let mut head = Tar::new(time);
    let mut add = |name: &str, mode, content: &[u8]| {
        head.file(&format!("./{name}"), mode, content).map_err(|e| e.to_string())
    };
    add("control", 0o644, control.as_bytes())?;
    for script in ["postinst", "prerm", "postrm"] {
        add(script, 0o755, &read(&root.join("packaging").join("debian").join(script))?)?;
    }
    let head = head.finish().map_err(|e| e.to_string())?;
    let mut data = Tar::new(time);
    pack(items, "./usr/", &mut data)?;
    let data = data.finish().map_err(|e| e.to_string())?;
    let parts: [(&str, &[u8]); 3] =
        [("debian-binary", b"2.0\n"), ("control.tar.gz", &head), ("data.tar.gz", &data)];
    Ok(ar(&parts, time))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The package put under a root that is thrown away, and taken off it again. The files are the true ones but for
    /// the program, which is not built for this.
    #[test]
    fn dpkg_installs_and_purges_the_package() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("has a parent");
        let unit = read(&root.join("packaging").join("etch.service")).expect("the unit");
        let items = [
            file("bin/etch", 0o755, vec![1; 5000]),
            link("bin/etchctl", "etch"),
            link("lib/etch/bin/etcd", "../../../bin/etch"),
            file(UNIT, 0o644, unit.clone()),
        ];
        let bytes = deb(root, &items, debian_arch(), 0).expect("a package");
        let dir = env::temp_dir().join(format!("etch-dist-root-{}", std::process::id()));
        let state = dir.join("root/var/lib/dpkg");
        for part in ["updates", "info"] {
            fs::create_dir_all(state.join(part)).expect("made");
        }
        fs::write(state.join("status"), "").expect("written");
        let package = dir.join("etch.deb");
        fs::write(&package, bytes).expect("written");
        let data = dir.join("root/var/lib/etcd/member");
        fs::create_dir_all(&data).expect("made");
        let dpkg = |words: &[&str]| {
            // No libc6 there, and no shell: the scripts run here, and are told so.
            Command::new("dpkg")
                .arg(format!("--root={}", dir.join("root").display()))
                .args(["--force-depends", "--force-script-chrootless", "--log=/dev/null"])
                .args(words)
                .output()
        };
        let package = package.display().to_string();
        let info = Command::new("dpkg-deb").args(["--info", &package]).output();
        let user = Command::new("id").arg("-u").output().expect("there is `id`");
        // Where there is no dpkg nobody installs its packages, and only root can.
        if let Ok(info) = info
            && user.stdout == b"0\n"
        {
            let text = String::from_utf8_lossy(&info.stdout).into_owned();
            assert!(info.status.success() && text.contains(" Package: etch\n"), "{info:?}");
            let usr = dir.join("root/usr");
            for _ in ["new", "again"] {
                let done = dpkg(&["--install", &package]).expect("dpkg runs");
                assert!(done.status.success(), "{done:?}");
                let program = fs::metadata(usr.join("lib/etch/bin/etcd")).expect("leads there");
                assert_eq!((program.len(), program.permissions().mode() & 0o7777), (5000, 0o755));
                assert!(
                    fs::read_link(usr.join("bin/etchctl")).is_ok_and(|to| to == Path::new("etch"))
                );
                let mode = fs::metadata(usr.join(UNIT)).expect("there").permissions().mode();
                assert_eq!(
                    (fs::read(usr.join(UNIT)).ok(), mode & 0o7777),
                    (Some(unit.clone()), 0o644)
                );
            }
            let done = dpkg(&["--purge", "etch"]).expect("dpkg runs");
            assert!(done.status.success(), "{done:?}");
            assert!(!usr.exists() && data.exists(), "what is ours is gone, and the data is not");
        }
        fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn nothing_in_the_servers_page_is_taken_for_an_order() {
        let page = String::from_utf8(server_page(b"Usage:\n.etch --name\n'x\\n")).expect("text");
        assert!(page.ends_with(".nf\nUsage:\n\\&.etch \\-\\-name\n\\&'x\\en\n.fi\n"), "{page}");
    }
}
