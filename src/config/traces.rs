//! Where traces of calls go.

use super::meant::Traces;
use super::values;
use super::written::Table;

/// `None` where no endpoint is given: there are none.
pub(super) fn traces(t: &mut Table<'_, '_>) -> Option<Traces> {
    let wanted = "a URL such as \"http://127.0.0.1:4318/v1/traces\"";
    let endpoint = t.hidden("endpoint", wanted, |s| match s {
        "" => Ok(None),
        _ => Ok(values::url(s).map(|_| Some(s.to_owned()))?),
    });
    let service_name =
        t.parsed("service_name", "a word such as \"voxgate\"", |s| Ok(values::header_word(s)?));
    let headers = t.headers();
    Some(Traces {
        endpoint: endpoint.flatten()?,
        service_name: service_name.unwrap_or_else(|| "voxgate".to_owned()),
        headers,
    })
}
