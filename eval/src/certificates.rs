//! Certificates for the TLS actors of a lab: a good one, and one for each thing that is wrong with certificates.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::command;

/// What clients call the server.
pub(crate) const SERVER_NAME: &str = "web.example";

/// Makes `ca.pem`, and a certificate with its key for the client and for every kind of server.
pub(crate) fn make(folder: &Path) -> Result<()> {
    let path = folder.display();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "stranger"] {
        command::run(&format!(
            "openssl req -x509 {key} -keyout {path}/{authority}.key -out {path}/{authority}.pem -subj /CN={authority} -days 30"
        ))?;
    }
    for (name, authority, host, days) in [
        ("good", "ca", SERVER_NAME, 30),
        ("expired", "ca", SERVER_NAME, -1),
        ("other", "ca", "mail.example", 30),
        ("unknown", "stranger", SERVER_NAME, 30),
        ("client", "ca", "client.example", 30),
    ] {
        fs::write(
            folder.join(format!("{name}.ext")),
            format!("subjectAltName=DNS:{host}\n"),
        )?;
        command::run(&format!(
            "openssl req {key} -keyout {path}/{name}.key -out {path}/{name}.csr -subj /CN={host}"
        ))?;
        command::run(&format!(
            "openssl x509 -req -in {path}/{name}.csr -CA {path}/{authority}.pem -CAkey {path}/{authority}.key -CAcreateserial -days {days} -extfile {path}/{name}.ext -out {path}/{name}.pem"
        ))?;
    }
    Ok(())
}
