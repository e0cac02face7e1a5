//! `pgweir healthcheck`: asks a running process how it is, for images that have no curl.
//!
//! Where it is asked is found in the configuration and the environment that it was started with; a mistake in the file does not
//! matter, since the process goes on with what it had. Without metrics there is no health over HTTP: then the pooler itself is asked
//! whether it does TLS, which shows that it accepts connections and answers, and no more.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::cli::{Healthcheck, Probe};
use crate::config::{self, Settings};
use crate::net::unix::SocketPath;

/// How long everything may take.
pub const TIME_MAX: Duration = Duration::from_millis(800);
/// The most that is read of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Does the pooler do TLS? The one question that it answers with one byte, before anything else.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Asks, prints what was answered, and says by the exit code whether all is well: 0 if so, else 1.
pub fn run(wanted: &Healthcheck) -> ExitCode {
    let (answer, answered) = mpsc::channel();
    let wanted = wanted.clone();
    // A name may take longer to look up than there is time.
    let asking = std::thread::Builder::new().spawn(move || drop(answer.send(ask(&wanted))));
    let answer = match asking {
        Ok(_) => answered
            .recv_timeout(TIME_MAX)
            .unwrap_or_else(|_| Err(format!("no answer within {} ms", TIME_MAX.as_millis()))),
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{}", text.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn ask(wanted: &Healthcheck) -> Result<String, String> {
    let deadline = Instant::now() + TIME_MAX;
    if let Some(url) = &wanted.url {
        let (address, path) = parts(url)?;
        return ask_http(&address, &path, deadline);
    }
    let settings = config::settings_as_far_as_readable(
        wanted.file.as_deref().map(Path::new),
        config::variables(),
    );
    if settings.metrics_port == 0 {
        return ask_pooler(&settings, deadline);
    }
    let host = settings
        .metrics_addr
        .first()
        .map_or("127.0.0.1", String::as_str);
    let address = address(host, settings.metrics_port);
    ask_http(&address, path(wanted.probe()), deadline)
}

fn path(probe: Probe) -> &'static str {
    match probe {
        Probe::Ready => "/readyz",
        Probe::Live => "/livez",
        Probe::Startup => "/startupz",
    }
}

/// An address to connect to, for one that is listened on.
fn address(host: &str, port: u16) -> String {
    match host {
        "*" | "0.0.0.0" => format!("127.0.0.1:{port}"),
        "::" => format!("[::1]:{port}"),
        host if host.contains(':') => format!("[{host}]:{port}"),
        host => format!("{host}:{port}"),
    }
}

/// Address and path of a `http://host[:port][/path]`.
fn parts(url: &str) -> Result<(String, String), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("not a http:// address: {url}"))?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/readyz"),
    };
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = match has_port {
        true => authority.to_owned(),
        false => format!("{authority}:80"),
    };
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("not a http:// address: {}", url.escape_debug()));
    }
    Ok((address, path.to_owned()))
}

fn time_left(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    left.max(Duration::from_millis(1))
}

fn connect(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, time_left(deadline)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(time_left(deadline)))?;
                stream.set_write_timeout(Some(time_left(deadline)))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks for a path; an answer of 200 is all well. Either way its body is the reason.
fn ask_http(address: &str, path: &str, deadline: Instant) -> Result<String, String> {
    let exchange = || -> io::Result<Vec<u8>> {
        let mut stream = connect(address, deadline)?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer =
        exchange().map_err(|error| format!("no answer from http://{address}{path}: {error}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    match status {
        "200" => Ok(body.to_owned()),
        _ if body.is_empty() => Err(format!("http://{address}{path} answers {status}")),
        _ => Err(body.to_owned()),
    }
}

/// Asks the pooler itself: by TCP if it listens there, else by its Unix socket.
fn ask_pooler(settings: &Settings, deadline: Instant) -> Result<String, String> {
    let told = |place: String, answered: io::Result<()>| match answered {
        Ok(()) => Ok(format!(
            "{place} answers (metrics_port is 0, so nothing else is known)"
        )),
        Err(error) => Err(format!("no answer from {place}: {error}")),
    };
    if let Some(host) = settings.listen_addr.first() {
        let address = address(host, settings.listen_port);
        let answered = connect(&address, deadline).and_then(greet);
        return told(address, answered);
    }
    let Some(dir) = &settings.unix_socket_dir else {
        return Err("neither metrics_port nor listen_addr nor unix_socket_dir is set".to_owned());
    };
    let socket = SocketPath::new(&dir.to_string_lossy(), settings.listen_port);
    told(
        socket.to_string(),
        connect_unix(&socket, deadline).and_then(greet),
    )
}

fn connect_unix(socket: &SocketPath, deadline: Instant) -> io::Result<UnixStream> {
    let address = socket2::SockAddr::unix(socket.for_kernel())?;
    let unix = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    unix.connect(&address)?;
    unix.set_read_timeout(Some(time_left(deadline)))?;
    unix.set_write_timeout(Some(time_left(deadline)))?;
    Ok(unix.into())
}

fn greet(mut stream: impl io::Read + io::Write) -> io::Result<()> {
    stream.write_all(&SSL_REQUEST)?;
    stream.read_exact(&mut [0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_ask() {
        let both = |address: &str, path: &str| Ok((address.to_owned(), path.to_owned()));
        assert_eq!(parts("http://a:9/livez"), both("a:9", "/livez"));
        assert_eq!(parts("http://a"), both("a:80", "/readyz"));
        assert_eq!(parts("http://[::1]:9"), both("[::1]:9", "/readyz"));
        assert_eq!(parts("http://[::1]/x"), both("[::1]:80", "/x"));
        assert!(parts("https://a").is_err() && parts("http://a/b\r\nX: y").is_err());
        assert_eq!(address("*", 1), "127.0.0.1:1");
        assert_eq!(address("::", 1), "[::1]:1");
        assert_eq!(address("fe80::1", 1), "[fe80::1]:1");
        assert_eq!(address("localhost", 1), "localhost:1");
    }
}
