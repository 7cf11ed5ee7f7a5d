//! Nothing: this package exists so that Cargo fetches the sources of
//! `etcd-client`, whose own tests `run-etcd-client.sh` runs.
