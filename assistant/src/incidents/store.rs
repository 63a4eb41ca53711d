//! Where incidents are kept: an SQLite file, or PostgreSQL. Opened when first needed, and again until it works.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions, Connection, Row, Transaction};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::intake::Intake;
use super::schema::STEPS;
use crate::hash::fnv;

/// Waiting longer for a connection or a lock helps nobody: Alertmanager sends again.
const PATIENCE: Duration = Duration::from_secs(5);
/// No statement of ours takes so long; but from a database whose host went without a word no answer ever comes.
const LONGEST: Duration = Duration::from_secs(15);
const CONNECTIONS: u32 = 8;
/// So long a failed change is told of, because a smaller one that succeeds proves little: a disk fills up bit by bit.
const BELIEVED: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    Sqlite(PathBuf),
    /// `postgres://…`
    Postgres(String),
}

impl Place {
    /// Without the password, which may stand in front of the host or among the parameters.
    pub fn describe(&self) -> String {
        let url = match self {
            Self::Sqlite(path) => return path.display().to_string(),
            Self::Postgres(url) => url,
        };
        let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
        let host = match rest.rsplit_once('@') {
            Some((_, host)) => host,
            // What stands here may be the beginning of a password with a question mark in it.
            None if parameters.contains('@') => "",
            None => rest,
        };
        let is_place = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default();
            matches!(name, "host" | "hostaddr" | "port" | "dbname") && !pair.contains('@')
        };
        let parameters: Vec<&str> = parameters.split('&').filter(is_place).collect();
        match parameters.is_empty() {
            true => format!("{scheme}://{host}"),
            false => format!("{scheme}://{host}?{}", parameters.join("&")),
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

/// The store could not do what it was asked; nothing was changed by it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the incident store {place} {reason}")]
pub struct StoreError {
    place: String,
    reason: String,
}

/// What a transaction keeps others from.
pub(super) enum Lock<'a> {
    /// Two changes of the same group at a time.
    Group(&'a str),
    /// Two changes of the tables at a time.
    Tables,
    None,
}

pub struct Store {
    pub(super) pool: AnyPool,
    options: AnyConnectOptions,
    place: Place,
    /// Who is told of diagnoses.
    pub(super) targets: Vec<&'static str>,
    opened: OnceCell<()>,
    /// SQLite has one writer: waiting here is in order and costs nothing.
    writers: Semaphore,
    pub(super) intake: Intake,
    /// When and why a change failed, until one succeeds.
    trouble: Mutex<Option<(Instant, String)>>,
}

impl Store {
    pub(super) fn new(place: &Place, targets: Vec<&'static str>) -> Result<Self, StoreError> {
        install_default_drivers();
        let (url, writers) = match place {
            Place::Sqlite(path) => (sqlite_url(path), 1),
            Place::Postgres(url) => (url.clone(), CONNECTIONS as usize),
        };
        let failed = |reason: String| StoreError {
            place: place.describe(),
            reason,
        };
        let options: AnyConnectOptions = url
            .parse()
            .map_err(|error: sqlx::Error| failed(format!("has no such address: {error}")))?;
        // Every statement would be logged at debug, with slow ones as warnings.
        let options = options.disable_statement_logging();
        let sqlite = matches!(place, Place::Sqlite(_));
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if sqlite {
                        prepare(connection).await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(options.clone());
        Ok(Self {
            pool,
            options,
            place: place.clone(),
            targets,
            opened: OnceCell::new(),
            writers: Semaphore::new(writers),
            intake: Intake::default(),
            trouble: Mutex::new(None),
        })
    }

    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self.place, Place::Sqlite(_))
    }

    /// Whether incidents can be stored now: the part of `/readyz` that is about them.
    pub async fn check(&self) -> Result<(), StoreError> {
        let trouble = self.trouble();
        if let Some((since, reason)) = &trouble
            && self.opened.initialized()
            && since.elapsed() < BELIEVED
        {
            return Err(StoreError {
                place: self.place.describe(),
                reason: reason.clone(),
            });
        }
        if self.opened.initialized() && trouble.is_none() {
            self.read().await?;
            let alive = sqlx::query("SELECT 1").fetch_one(&self.pool).await;
            return alive.map(|_| ()).map_err(|error| self.failed(&error));
        }
        // Whether what failed works again shows only when something is written.
        let mut change = self.change(Lock::None).await?;
        let written = sqlx::query("UPDATE schema_version SET version = version")
            .execute(&mut *change.transaction)
            .await;
        written.map_err(|error| self.failed(&error))?;
        self.commit(change).await
    }

    fn trouble(&self) -> Option<(Instant, String)> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }

    /// For those that would wait for ever: a loop that goes on behind, and Alertmanager, which sends again what is refused.
    pub(super) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = tokio::time::timeout(LONGEST, work).await;
        done.unwrap_or_else(|_| Err(self.because("does not answer in time".into())))
    }

    /// To be called before reading.
    pub(super) async fn read(&self) -> Result<(), StoreError> {
        self.opened.get_or_try_init(|| self.open()).await?;
        Ok(())
    }

    /// Begins a change: all of it will be there, or none.
    pub(super) async fn change(&self, lock: Lock<'_>) -> Result<Change<'_>, StoreError> {
        self.read().await?;
        let change = self.begin(lock).await;
        change.map_err(|error| self.failed(&error))
    }

    async fn begin(&self, lock: Lock<'_>) -> Result<Change<'_>, sqlx::Error> {
        let turn = tokio::time::timeout(PATIENCE, self.writers.acquire()).await;
        let turn = turn
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)?;
        if self.is_sqlite() {
            // A transaction that reads first and then writes would fail where another process wrote in between.
            let transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            return Ok(Change {
                transaction,
                _turn: turn,
            });
        }
        let mut transaction = self.pool.begin().await?;
        let number = match lock {
            Lock::Group(key) => Some(fnv(&[key.as_bytes()]) as i64),
            Lock::Tables => Some(0x7275_6e77_6972_6500),
            Lock::None => None,
        };
        if let Some(number) = number {
            // Counted, because the lock itself gives a value of a type that cannot be read.
            sqlx::query("SELECT count(*) FROM (SELECT pg_advisory_xact_lock($1)) AS locked")
                .bind(number)
                .fetch_one(&mut *transaction)
                .await?;
        }
        Ok(Change {
            transaction,
            _turn: turn,
        })
    }

    pub(super) async fn commit(&self, change: Change<'_>) -> Result<(), StoreError> {
        let committed = change.transaction.commit().await;
        committed.map_err(|error| self.failed(&error))?;
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    async fn open(&self) -> Result<(), StoreError> {
        if let Place::Sqlite(path) = &self.place {
            make_file(path).map_err(|error| self.because(format!("cannot be made: {error}; give a file in a folder that can be written to with `incidents`")))?;
        }
        self.knock().await.map_err(|error| self.failed(&error))?;
        let opened = self.migrate().await.map_err(|error| self.failed(&error))?;
        if opened > STEPS.len() as i64 {
            return Err(self.because(format!(
                "was made by a newer version (its tables have version {opened}, this program knows {}); use that version, or another place",
                STEPS.len()
            )));
        }
        Ok(())
    }

    /// One connection beside the pool, which would try again and again and then say only that it took too long.
    async fn knock(&self) -> Result<(), sqlx::Error> {
        let try_once = async {
            let mut connection = AnyConnection::connect_with(&self.options).await?;
            if self.is_sqlite() {
                prepare(&mut connection).await?;
            }
            connection.close().await
        };
        tokio::time::timeout(PATIENCE, try_once)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Gives the version that the tables have in the end.
    async fn migrate(&self) -> Result<i64, sqlx::Error> {
        let mut change = self.begin(Lock::Tables).await?;
        let connection = &mut *change.transaction;
        sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
            .execute(&mut *connection)
            .await?;
        let row = sqlx::query("SELECT version FROM schema_version")
            .fetch_optional(&mut *connection)
            .await?;
        let before: i64 = match row {
            Some(row) => row.try_get(0)?,
            None => {
                sqlx::query("INSERT INTO schema_version (version) VALUES (0)")
                    .execute(&mut *connection)
                    .await?;
                0
            }
        };
        let mut version = before;
        for step in STEPS.iter().skip(before.try_into().unwrap_or(usize::MAX)) {
            for statement in *step {
                sqlx::query(*statement).execute(&mut *connection).await?;
            }
            version += 1;
        }
        if version != before {
            sqlx::query("UPDATE schema_version SET version = $1")
                .bind(version)
                .execute(&mut *connection)
                .await?;
        }
        change.transaction.commit().await?;
        Ok(version)
    }

    /// What went wrong, as it is told to a caller and in `/readyz`.
    pub(super) fn failed(&self, error: &sqlx::Error) -> StoreError {
        let reason = match error {
            sqlx::Error::PoolTimedOut => "does not answer in time".to_owned(),
            sqlx::Error::Database(error) => format!("refuses: {}", error.message()),
            other => format!("cannot be used: {other}"),
        };
        self.because(reason)
    }

    pub(super) fn because(&self, reason: String) -> StoreError {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        *trouble = Some((Instant::now(), reason.clone()));
        StoreError {
            place: self.place.describe(),
            reason,
        }
    }
}

/// A transaction and the right to write. Undone when dropped.
pub(super) struct Change<'a> {
    pub(super) transaction: Transaction<'static, Any>,
    _turn: SemaphorePermit<'a>,
}

/// What every connection to SQLite begins with. FULL: what was acknowledged survives also a loss of power.
async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    for pragma in [
        "PRAGMA busy_timeout = 5000",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
    ] {
        sqlx::query(pragma).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Readable by us alone: alerts and comments are nobody else's.
fn make_file(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path);
    file.map(|_| ())
}

/// Everything but the plainest characters is encoded, so that no path means something else in a URL.
fn sqlite_url(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut url = String::from("sqlite://");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                url.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            other => {
                let _ = write!(url, "%{other:02X}");
            }
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_told() {
        for (url, shown) in [
            ("postgres://u:p%40@db:5432/x", "postgres://db:5432/x"),
            ("postgres:///x?host=/run", "postgres:///x?host=/run"),
            (
                "postgres://db:5432/x?user=u&password=p%40&host=/run",
                "postgres://db:5432/x?host=/run",
            ),
            ("postgres://u@db/x?password=p@q", "postgres://db/x"),
            ("postgres://u:p?q@db/x", "postgres://"),
        ] {
            assert_eq!(Place::Postgres(url.into()).describe(), shown);
        }
    }

    #[test]
    fn any_path_is_a_url() {
        assert_eq!(
            sqlite_url(Path::new("/a b/c?mode=ro#.db")),
            "sqlite:///a%20b/c%3Fmode%3Dro%23.db"
        );
    }
}
