//! From flags and variables to a client: what each command that talks to a cluster begins with. Not here: the calls.

use std::path::Path;
use std::time::Duration;

use etch_cli::{Failure, Matches, go};
use etch_client::{Client, Config, Error, Tls};
use tokio::runtime::Runtime;

use crate::display::Display;
use crate::fail::{failed, not_connected};
use crate::{bad_args, env, exit, password};

/// Go's gRPC asks no server for a sign of life more often than this, whatever it is told.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(10);
/// How long before a command's time is up a search for an endpoint ends, so that it can say what it found.
const SPARE: Duration = Duration::from_millis(50);

/// A command's surroundings: its flags, a client, the form of its output.
pub struct Ctl {
    /// The command's flags, those from variables among them.
    pub matches: Matches,
    /// The client. Its calls have no time limit of their own; [`Ctl::ask`] sets one.
    pub client: Client,
    /// How answers are printed.
    pub display: Display,
    config: Config,
    runtime: Option<Runtime>,
    limit: Duration,
    dial_limit: Duration,
}

impl Ctl {
    /// Connects for short commands: those that end when the time for a command is up.
    pub fn new(matches: &Matches) -> Result<Self, Failure> {
        Self::start(matches, true)
    }

    /// Connects for commands that last, and wait for an endpoint as long as it takes.
    pub fn lasting(matches: &Matches) -> Result<Self, Failure> {
        Self::start(matches, false)
    }

    fn start(matches: &Matches, short: bool) -> Result<Self, Failure> {
        let mut parts = Parts::new(matches)?;
        let limit = parts.limit;
        parts.config.dial_timeout =
            if short { limit.saturating_sub(SPARE) } else { Duration::ZERO };
        let Parts { matches, display, runtime, limit, config, dial } = parts;
        let client = runtime.block_on(connect(config.clone(), dial)).map_err(not_connected)?;
        let runtime = Some(runtime);
        Ok(Self { matches, client, display, config, runtime, limit, dial_limit: dial })
    }

    /// One more client like ours, with connections of its own.
    pub async fn another(&self) -> Result<Client, Failure> {
        connect(self.config.clone(), self.dial_limit).await.map_err(not_connected)
    }

    /// Asks the cluster something within the command's time.
    pub fn ask<T>(
        &self,
        work: impl AsyncFnOnce(Client) -> etch_client::Result<T>,
    ) -> Result<T, Failure> {
        self.try_ask(work).map_err(failed)
    }

    /// The same, for commands whose failures have a status or a text of their own.
    pub fn try_ask<T>(
        &self,
        work: impl AsyncFnOnce(Client) -> etch_client::Result<T>,
    ) -> etch_client::Result<T> {
        self.run(work(self.client.with_timeout(self.limit)))
    }

    /// Runs work that looks after its own time.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref().expect("it is taken by `drop` alone");
        runtime.block_on(work)
    }

    /// The time that a command may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }
}

/// What a client is made of: for commands that talk to one endpoint after another.
pub struct Parts {
    /// The command's flags, those from variables among them.
    pub matches: Matches,
    /// How answers are printed.
    pub display: Display,
    /// Where calls run.
    pub runtime: Runtime,
    /// The time that a command may take.
    pub limit: Duration,
    config: Config,
    dial: Duration,
}

impl Parts {
    /// As flags and variables say. Nobody is asked for anything yet, but DNS and, for a password, the user.
    pub fn new(matches: &Matches) -> Result<Self, Failure> {
        let mut matches = matches.clone();
        env::apply(&mut matches)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::new(exit::ERROR, e.to_string()))?;
        let endpoints = runtime.block_on(endpoints(&matches))?;
        let tls = tls(&matches)?;
        let login = login(&matches)?;
        let display = Display::new(&matches)?;
        let limit = span(&matches, "command-timeout");
        let mut config = config(&matches, usable(endpoints, tls.is_some())?);
        config.tls = tls;
        config.dial_timeout = limit.saturating_sub(SPARE);
        login.put_into(&mut config);
        let dial = span(&matches, "dial-timeout");
        Ok(Self { matches, display, runtime, limit, config, dial })
    }

    /// The endpoints that the flags name.
    pub fn endpoints(&self) -> &[String] {
        &self.config.endpoints
    }

    /// A client for all endpoints.
    pub async fn client(&self) -> etch_client::Result<Client> {
        connect(self.config.clone(), self.dial).await
    }

    /// A client for one endpoint.
    pub async fn client_of(&self, endpoint: &str) -> etch_client::Result<Client> {
        let config = Config { endpoints: vec![endpoint.to_owned()], ..self.config.clone() };
        connect(config, self.dial).await
    }
}

impl Drop for Ctl {
    /// A name that is still being looked up does not hold the end up.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Connects; only the login waits for an answer.
pub async fn connect(config: Config, limit: Duration) -> etch_client::Result<Client> {
    if limit.is_zero() {
        return Client::connect(config).await;
    }
    let late = || Err(Error::Deadline { sent: true });
    tokio::time::timeout(limit, Client::connect(config)).await.unwrap_or_else(|_| late())
}

/// A flag's span of time; what is negative is none at all.
pub fn span(matches: &Matches, flag: &str) -> Duration {
    Duration::from_nanos(matches.duration_ns(flag).try_into().unwrap_or(0))
}

/// What of the configuration is neither about TLS nor about a login.
pub fn config(matches: &Matches, endpoints: Vec<String>) -> Config {
    let mut config = Config::new(endpoints);
    config.dial_keep_alive_time = span(matches, "keepalive-time").max(KEEP_ALIVE_MIN);
    config.dial_keep_alive_timeout = span(matches, "keepalive-timeout");
    let size = |flag| usize::try_from(matches.number(flag)).ok().filter(|size| *size > 0);
    if let Some(most) = size("max-recv-bytes") {
        config.max_call_recv_msg_size = most;
        config.max_call_send_msg_size = config.max_call_send_msg_size.min(most);
    }
    if let Some(most) = size("max-request-bytes") {
        config.max_call_send_msg_size = most;
    }
    config
}

/// The endpoints: those that DNS names, otherwise the list.
async fn endpoints(matches: &Matches) -> Result<Vec<String>, Failure> {
    let domain = matches.text("discovery-srv");
    if !domain.is_empty() {
        let found = discover(matches, domain).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(matches.list("endpoints").iter().map(|e| e.trim().to_owned()).collect())
}

/// Asks DNS. The client that does is not the one that logs in: no password goes where it must not.
async fn discover(matches: &Matches, domain: &str) -> Result<Vec<String>, Failure> {
    let name = matches.text("discovery-srv-name");
    let endpoint =
        if name.is_empty() { format!("srv:{domain}") } else { format!("srv:{domain}/{name}") };
    let client = Client::connect(endpoint).await.map_err(|e| {
        let why = match e {
            Error::NoEndpoint(why) => why,
            other => other.to_string(),
        };
        Failure::new(exit::ERROR, format!("dns lookup errors: {why}"))
    })?;
    let mut found = client.endpoints();
    client.close();
    if !matches.is_on("insecure-discovery") {
        found.retain(|endpoint| {
            let secure = !endpoint.starts_with("http://");
            if !secure {
                // Shown as DNS writes it, with a dot at the name's end.
                let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, ""));
                let shown = format!("{host}.:{port}");
                eprintln!("ignoring discovered insecure endpoint {}", go::quote(&shown));
            }
            secure
        });
    }
    Ok(found)
}

/// The endpoints that make sense. As long as there is one, the others are only spoken of.
pub fn usable(endpoints: Vec<String>, secured: bool) -> Result<Vec<String>, Failure> {
    if endpoints.is_empty() {
        return Err(Failure::new(exit::BAD_CONNECTION, "etcdclient: no available endpoints"));
    }
    let (mut good, mut whys) = (Vec::with_capacity(endpoints.len()), Vec::new());
    for endpoint in endpoints {
        let mut config = Config::new([endpoint.clone()]);
        config.tls = secured.then(|| Tls::new().dangerously_skip_verify());
        match config.check() {
            Ok(()) => good.push(endpoint),
            Err(why) => whys.push(why.to_string()),
        }
    }
    if good.is_empty() {
        return Err(Failure::new(exit::ERROR, whys.join("; ")));
    }
    whys.iter().for_each(|why| eprintln!("{why}"));
    Ok(good)
}

/// The TLS that the flags ask for, if they do.
fn tls(matches: &Matches) -> Result<Option<Tls>, Failure> {
    for flag in ["cert", "key", "cacert"] {
        if matches.is_given(flag) && matches.text(flag).is_empty() {
            return Err(bad_args(format!("empty string is passed to --{flag} option")));
        }
    }
    let verified_name = (!matches.is_on("insecure-discovery"))
        .then(|| matches.text("discovery-srv"))
        .filter(|name| !name.is_empty());
    let files =
        Files { cert: matches.text("cert"), key: matches.text("key"), ca: matches.text("cacert") };
    let mut tls = files.tls()?;
    if let Some(name) = verified_name {
        tls = Some(tls.unwrap_or_default().server_name(name));
    }
    if !matches.is_on("insecure-transport") {
        tls = Some(tls.unwrap_or_default());
    }
    if matches.is_on("insecure-skip-tls-verify") {
        tls = Some(tls.unwrap_or_default().dangerously_skip_verify());
    }
    Ok(tls)
}

/// Certificates as files; empty names for none.
pub struct Files<'a> {
    /// Our certificate.
    pub cert: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Whom we trust.
    pub ca: &'a str,
}

impl Files<'_> {
    /// Reads them once, so that what is wrong with them is said before anything is sent.
    pub fn tls(&self) -> Result<Option<Tls>, Failure> {
        let Self { cert, key, ca } = *self;
        if cert.is_empty() && key.is_empty() && ca.is_empty() {
            return Ok(None);
        }
        let mut tls = Tls::new();
        if cert.is_empty() != key.is_empty() {
            let why =
                format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
            return Err(bad_args(why));
        }
        for file in [cert, key, ca].into_iter().filter(|file| !file.is_empty()) {
            std::fs::File::open(file)
                .map_err(|e| bad_args(go::io_error("open", Path::new(file), &e)))?;
        }
        if !cert.is_empty() {
            tls = tls.identity_files(cert, key);
        }
        if !ca.is_empty() {
            tls = tls.ca_file(ca);
        }
        let nowhere = Config::new(["localhost:1"]).tls(tls.clone());
        nowhere.check().map_err(|e| bad_args(e.to_string()))?;
        Ok(Some(tls))
    }
}

/// Who logs in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Login {
    name: String,
    password: String,
    token: String,
}

impl Login {
    /// From a user, perhaps with the password behind a colon, and a password. Asks for what is missing.
    pub fn new(user: &str, password: &str) -> Result<Self, Failure> {
        Self::asking("Password: ", user, password)
    }

    /// The same, asking with this prompt.
    pub fn asking(prompt: &str, user: &str, password: &str) -> Result<Self, Failure> {
        let (name, password) = match user.split_once(':') {
            _ if user.is_empty() => return Ok(Self::default()),
            _ if !password.is_empty() => (user, password.to_owned()),
            Some((name, password)) => (name, password.to_owned()),
            None => (user, password::ask(prompt)?),
        };
        Ok(Self { name: name.to_owned(), password, token: String::new() })
    }

    /// Into a configuration. A user without a password does not log in.
    pub fn put_into(self, config: &mut Config) {
        config.token = self.token;
        if !self.name.is_empty() && !self.password.is_empty() {
            config.username = self.name;
            config.password = self.password;
        }
    }
}

fn login(matches: &Matches) -> Result<Login, Failure> {
    let token = matches.text("auth-jwt-token");
    if !token.is_empty() {
        return Ok(Login { token: token.to_owned(), ..Login::default() });
    }
    Login::new(matches.text("user"), matches.text("password"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_stand_behind_the_user() {
        let login = |user, password| {
            let login = Login::new(user, password).expect("nothing to ask for");
            (login.name, login.password)
        };
        assert_eq!(login("root:a:b", ""), ("root".into(), "a:b".into()));
        assert_eq!(login("ro:ot", "pw"), ("ro:ot".into(), "pw".into()));
        assert_eq!(login("", "pw"), (String::new(), String::new()));
    }

    #[test]
    fn one_good_endpoint_will_do() {
        let given = |list: &[&str]| usable(list.iter().map(|e| (*e).to_owned()).collect(), false);
        assert_eq!(given(&["nonsense", "a:1"]), Ok(vec!["a:1".to_owned()]));
        assert_eq!(given(&["nonsense"]).map_err(|f| f.code), Err(exit::ERROR));
        let none = Failure::new(exit::BAD_CONNECTION, "etcdclient: no available endpoints");
        assert_eq!(given(&[]), Err(none));
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let wrong = Files { cert: "x", key: "", ca: "" }.tls().expect_err("no key");
        let why = "KeyFile and CertFile must both be present[key: , cert: x]";
        assert_eq!(wrong, bad_args(why));
        let wrong = Files { cert: "", key: "", ca: "/no/such" }.tls().expect_err("no file");
        assert_eq!(wrong, bad_args("open /no/such: no such file or directory"));
    }
}
