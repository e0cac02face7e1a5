//! stub
use crate::error::ClientError;
use crate::net::dial::Target;
use crate::net::options::TcpOptions;
use crate::net::stream::DetachedStream;
use crate::net::tls::ServerTls;
use crate::types::BackendKey;
use std::sync::Arc;
use std::time::Duration;
pub struct ConnectPlan {
    pub target: Target,
    pub tcp: TcpOptions,
    pub tls: Option<Arc<ServerTls>>,
    pub timeout: Duration,
    pub startup: Vec<(Vec<u8>, Vec<u8>)>,
    pub user: Arc<crate::auth::User>,
    pub connect_query: Option<String>,
    pub who: String,
    pub log_connections: bool,
    pub log_disconnections: bool,
}
pub struct Fresh {
    pub stream: DetachedStream,
    pub key: BackendKey,
    pub parameters: Vec<(Vec<u8>, Vec<u8>)>,
    pub addr: String,
    pub port: u16,
    pub local_addr: String,
    pub local_port: u16,
    pub tls: Option<&'static str>,
}
pub struct ConnectError;
impl ConnectError {
    pub fn client_error(&self) -> ClientError {
        todo!()
    }
    pub fn is_relayed(&self) -> bool {
        todo!()
    }
}
pub async fn connect(_p: ConnectPlan) -> Result<Fresh, ConnectError> {
    todo!()
}
pub async fn cancel(
    _target: Target,
    _tcp: TcpOptions,
    _tls: Option<Arc<ServerTls>>,
    _key: BackendKey,
    _timeout: Duration,
) -> std::io::Result<()> {
    todo!()
}
