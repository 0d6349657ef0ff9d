//! Fake socket mode: envelopes out, acknowledgements in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::world::{Order, World};

/// Starts it; gives its address.
pub async fn serve(world: Arc<World>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            if world.with(|state| state.down) {
                continue;
            }
            tokio::spawn(greet(world.clone(), stream));
        }
    });
    address
}

async fn greet(world: Arc<World>, stream: TcpStream) {
    if world.with(|state| state.mute) {
        // The connection stays open, and no message is ever sent on it.
        std::future::pending::<()>().await;
    }
    let tickets = world.clone();
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let check = move |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let ticket = query.split('&').find_map(|pair| pair.strip_prefix("ticket=")).unwrap_or_default();
        // A ticket is good once.
        let known = tickets.with(|state| {
            let place = state.tickets.iter().position(|other| other == ticket)?;
            Some(state.tickets.remove(place))
        });
        match known {
            Some(_) if !tickets.with(|state| state.deaf) => Ok(response),
            _ => Err(Response::builder().status(403).body(None).unwrap()),
        }
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, check).await else { return };
    let (orders, to_do) = mpsc::unbounded_channel();
    let number = world.number();
    let hello = json!({
        "type": "hello", "num_connections": 1, "connection_info": {"app_id": world.hello_app()},
        "debug_info": {"host": "applink-1", "started": "", "build_number": 1, "approximate_connection_time": 18060},
    });
    world.with(|state| state.sockets.insert(number, orders.clone()));
    let _ = orders.send(Order::Send(hello.to_string()));
    talk(&world, socket, to_do).await;
    world.with(|state| state.sockets.remove(&number));
}

async fn talk(
    world: &World,
    mut socket: WebSocketStream<TcpStream>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut ping = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Send(text)) => {
                    if socket.send(Frame::Text(text.into())).await.is_err() {
                        return;
                    }
                }
                Some(Order::Close) => {
                    let _ = socket.close(None).await;
                    return;
                }
                Some(Order::Cut) | None => return,
                Some(Order::Freeze) => std::future::pending().await,
            },
            frame = socket.next() => match frame {
                Some(Ok(Frame::Text(text))) => acknowledged(world, &text),
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            _ = ping.tick() => {
                if socket.send(Frame::Ping("Ping from applink-1".into())).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn acknowledged(world: &World, text: &str) {
    let Ok(ack) = serde_json::from_str::<Value>(text) else { return };
    let Some(envelope) = ack["envelope_id"].as_str() else { return };
    let waiting = world.with(|state| {
        *state.acks.entry(envelope.to_owned()).or_default() += 1;
        state.waiting_acks.remove(envelope)
    });
    if let Some(waiting) = waiting {
        let _ = waiting.send(ack);
    }
}
