//! How much memory a server holds, by its own account: one line of its metrics. Not here: what is made of it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const NAME: &str = "process_resident_memory_bytes";
/// More than any server's metrics take.
const PAGE_MAX: u64 = 64 << 20;

/// Asks an endpoint's server; an error is a line to print.
pub async fn resident(endpoint: &str, limit: Duration) -> Result<f64, String> {
    let url = match endpoint.strip_prefix("http://") {
        Some(host) => host.trim_end_matches('/'),
        None if endpoint.starts_with("https://") => {
            return Err("fetch error: metrics are read from plain http endpoints alone".into());
        }
        None => endpoint,
    };
    let page = tokio::time::timeout(limit, fetch(url)).await;
    let late = || format!("fetch error: http://{url}/metrics: no answer in time");
    let page = page.map_err(|_| late())?.map_err(|e| format!("fetch error: {e}"))?;
    value(&page)
}

/// The page, head and all. HTTP/1.0 gives it in one piece and ends the connection.
async fn fetch(host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\nAccept: text/plain\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = Vec::new();
    stream.take(PAGE_MAX).read_to_end(&mut page).await?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn value(page: &str) -> Result<f64, String> {
    let found = page.lines().find_map(|line| line.strip_prefix(NAME)).map(str::trim);
    let found = found.ok_or_else(|| format!("could not find: {NAME}"))?;
    found.parse().map_err(|e| format!("parse error: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found() {
        let page =
            "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 2.5e+07\n";
        assert_eq!(value(page), Ok(2.5e7));
        assert_eq!(value("x 1\n"), Err("could not find: process_resident_memory_bytes".into()));
    }
}
