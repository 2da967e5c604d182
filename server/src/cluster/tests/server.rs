//! A redis-server of a test's own.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::told::eventually;

/// On a free port, with nothing on disk. Dropping it kills it.
pub(super) struct Server {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Server {
    pub(super) async fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("dunlin-redis-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
        let port = free_port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed in PATH: `apt-get install redis-server`");
        let server = Self { child, port, dir };
        eventually("redis-server listens", async || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        })
        .await;
        server
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
