//! What a layer needs from the machine: found, installed where that is allowed, or named as missing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::say;

/// A program that must be there, and the Debian package that brings it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// As people call it, with the version that is asked for.
    name: &'static str,
    /// A command that succeeds when it is there.
    probe: &'static [&'static str],
    /// The Debian package that brings it, or nothing when Debian's own is too old.
    package: Option<&'static str>,
}

pub(crate) const CHROMIUM: Need = Need {
    name: "chromium",
    probe: &["chromium", "--version"],
    package: Some("chromium"),
};
pub(crate) const GO: Need = Need {
    name: "go 1.22 or newer",
    probe: &["go", "version"],
    package: None,
};
pub(crate) const JAVA: Need = Need {
    name: "a JDK 17 or newer",
    probe: &["javac", "--version"],
    package: Some("openjdk-17-jdk-headless"),
};
pub(crate) const MAVEN: Need = Need {
    name: "maven",
    probe: &["mvn", "--version"],
    package: Some("maven"),
};
pub(crate) const NGINX: Need = Need {
    name: "nginx",
    probe: &["nginx", "-v"],
    package: Some("nginx-light"),
};
pub(crate) const NODE: Need = Need {
    name: "node 20.11 or newer",
    probe: &[
        "node",
        "-e",
        "const [major, minor] = process.versions.node.split('.').map(Number); \
         process.exit(major > 20 || (major === 20 && minor >= 11) ? 0 : 1)",
    ],
    package: None,
};
pub(crate) const NPM: Need = Need {
    name: "npm",
    probe: &["npm", "--version"],
    package: None,
};
/// Its programs are in a folder for each version, and not in the PATH.
pub(crate) const POSTGRES: Need = Need {
    name: "PostgreSQL 13 or newer, below /usr/lib/postgresql",
    probe: &[
        "sh",
        "-c",
        "ls /usr/lib/postgresql/*/bin/initdb | grep -qE '/(1[3-9]|[2-9][0-9])/bin/'",
    ],
    package: Some("postgresql"),
};
pub(crate) const REDIS: Need = Need {
    name: "redis-server 7.0 or newer, with redis-cli",
    probe: &[
        "sh",
        "-c",
        "redis-cli --version && redis-server --version | grep -qE 'v=([7-9]|[1-9][0-9])\\.'",
    ],
    package: Some("redis-server"),
};
pub(crate) const REDIS_SENTINEL: Need = Need {
    name: "redis-sentinel",
    probe: &["redis-sentinel", "--version"],
    package: Some("redis-sentinel"),
};
pub(crate) const PYTHON: Need = Need {
    name: "python3 with venv",
    probe: &["python3", "-c", "import ensurepip, venv"],
    package: Some("python3-venv"),
};

impl Need {
    /// Makes sure that the program is there, installing it if need be.
    ///
    /// # Errors
    /// It is missing and may not be installed from here, or the installation failed; the text says what to do.
    pub(crate) fn meet(&self) -> Result<()> {
        if self.is_met() {
            return Ok(());
        }
        let Some(package) = self.package else {
            bail!("{} is missing: install it and put it on the PATH", self.name);
        };
        if !may_install() {
            bail!(
                "{} is missing and only root may install it: apt-get install {package}",
                self.name
            );
        }
        say(&format!(
            "{} is missing: installing the package {package}",
            self.name
        ));
        // A fresh machine's package lists are empty or old: refresh them, and let the installation judge.
        drop(apt(&["update", "-qq"]));
        let quiet = NoServices::hold()?;
        apt(&["install", "-y", "-qq", "--no-install-recommends", package])?;
        drop(quiet);
        if !self.is_met() {
            bail!(
                "{} is still missing after the package {package} was installed",
                self.name
            );
        }
        Ok(())
    }

    fn is_met(&self) -> bool {
        let Some((program, args)) = self.probe.split_first() else {
            return true;
        };
        Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// Whether we are root on a machine with apt.
fn may_install() -> bool {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout.trim_ascii() == b"0");
    root && Command::new("apt-get")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// While this lives, packages start no services: the tests want the programs, and take ports of their own.
struct NoServices {
    /// The machine's administrator had nothing to say on that, so that what we said is ours to take back.
    is_ours: bool,
}

impl NoServices {
    /// What Debian's packages ask before they start anything; 101 means no.
    const POLICY: &'static str = "/usr/sbin/policy-rc.d";

    fn hold() -> Result<Self> {
        if Path::new(Self::POLICY).exists() {
            return Ok(Self { is_ours: false });
        }
        fs::write(Self::POLICY, "#!/bin/sh\nexit 101\n")
            .and_then(|()| fs::set_permissions(Self::POLICY, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", Self::POLICY))?;
        Ok(Self { is_ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_ours {
            drop(fs::remove_file(Self::POLICY));
        }
    }
}

fn apt(args: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("apt-get cannot be run")?;
    if !status.success() {
        bail!("`apt-get {}` failed", args.join(" "));
    }
    Ok(())
}
