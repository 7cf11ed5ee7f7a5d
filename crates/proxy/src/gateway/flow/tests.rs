//! Connections through a relay, with real sockets.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, yield_now};

use super::Lent;
use crate::gateway::lane::One;
use crate::gateway::relay::{Relay, Traffic};

/// What a test waits for comes long before.
const PATIENCE: Duration = Duration::from_secs(60);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("has an address");
    let (one, two) = tokio::join!(TcpStream::connect(address), listener.accept());
    (one.expect("connected"), two.expect("accepted").0)
}

/// A client and a server with a relay between them that runs on its own.
struct Carried {
    client: TcpStream,
    server: TcpStream,
    lent: Rc<Lent>,
    traffic: Rc<Traffic>,
    relay: tokio::task::JoinHandle<()>,
}

async fn carried() -> Carried {
    let ((client, near), (server, far)) = (pair().await, pair().await);
    let lent = Rc::<Lent>::default();
    let relay = Relay::new(near, far, Rc::clone(&lent), One::default());
    let traffic = relay.traffic();
    Carried { client, server, lent, traffic, relay: tokio::task::spawn_local(relay) }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let limited = async { tokio::time::timeout(PATIENCE, test).await.expect("in time") };
    LocalSet::new().block_on(&runtime.expect("a runtime"), limited);
}

fn noise(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(len as u64);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

#[test]
fn every_byte_arrives_in_both_directions_whatever_the_size() {
    run(async {
        let Carried { client, server, lent, relay, .. } = carried().await;
        let (mut client_out, mut client_in) = client.into_split();
        let (mut server_out, mut server_in) = server.into_split();
        for len in [1, 100, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 5_000_000] {
            let sent = noise(len);
            let (mut up, mut down) = (vec![0; len], vec![0; len]);
            let (a, b, c, d) = tokio::join!(
                client_in.write_all(&sent),
                server_in.write_all(&sent),
                server_out.read_exact(&mut up),
                client_out.read_exact(&mut down),
            );
            assert!(a.is_ok() && b.is_ok() && c.is_ok() && d.is_ok());
            assert!(up == sent && down == sent, "{len} bytes");
        }
        assert!(lent.pipes.idle() > 0, "nothing went through a pipe, or it was not given back");
        drop((client_in, server_in));
        relay.await.expect("the relay ends");
    });
}

#[test]
fn who_has_said_everything_still_gets_the_answer() {
    run(async {
        let Carried { mut client, mut server, relay, .. } = carried().await;
        client.write_all(b"question").await.expect("sent");
        client.shutdown().await.expect("half closed");
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.expect("an end");
        assert_eq!(question, b"question");
        server.write_all(&noise(1_000_000)).await.expect("sent");
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("an end");
        assert!(answer == noise(1_000_000));
        relay.await.expect("the relay ends");
    });
}

#[test]
fn a_slow_reader_holds_its_sender_back_and_gets_everything() {
    const SENT: usize = 64 << 20;
    run(async {
        let Carried { mut client, mut server, traffic, relay, .. } = carried().await;
        let sender = tokio::task::spawn_local(async move {
            let chunk = noise(1 << 20);
            for _ in 0..SENT / chunk.len() {
                server.write_all(&chunk).await.expect("sent");
            }
        });
        while !traffic.holds() {
            yield_now().await;
        }
        for _ in 0..1000 {
            yield_now().await;
        }
        assert!(traffic.moved() < SENT as u64 / 2, "{} bytes were taken in", traffic.moved());
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.expect("an end");
        let chunk = noise(1 << 20);
        assert_eq!(all.len(), SENT);
        assert!(all.chunks(chunk.len()).all(|part| part == chunk));
        drop(client);
        sender.await.expect("sent");
        relay.await.expect("the relay ends");
    });
}

#[test]
fn who_breaks_off_ends_the_other_side_too() {
    run(async {
        let Carried { mut client, mut server, relay, .. } = carried().await;
        client.write_all(b"x").await.expect("sent");
        server.read_exact(&mut [0]).await.expect("received");
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("set");
        drop(client);
        relay.await.expect("the relay ends");
        let end = server.read(&mut [0]).await;
        assert!(matches!(end, Ok(0) | Err(_)));
    });
}
