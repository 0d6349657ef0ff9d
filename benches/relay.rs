//! The least that a proxy on this runtime can cost: bytes from one socket to the other, unread.
//! `benches/run --relay` measures it beside the others, and what it takes is nobody's to save.

use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // `cargo bench` starts every benchmark, with `--bench`; only `benches/run` has ports for this one.
    let mut ports = std::env::args().skip(1).filter_map(|word| word.parse::<u16>().ok());
    let (Some(from), Some(to)) = (ports.next(), ports.next()) else { return Ok(()) };
    let listener = TcpListener::bind(("127.0.0.1", from)).await?;
    loop {
        let (mut client, _) = listener.accept().await?;
        tokio::spawn(async move {
            client.set_nodelay(true)?;
            let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
            server.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}
