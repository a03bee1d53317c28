//! Twilio's REST API as far as a call needs it: where a call is changed, the form that says how, and
//! what the answers mean.

use serde::Deserialize;

/// No such thing: of a call, that it is over, or of another account or region.
const NOT_FOUND: u64 = 20404;
/// The call is not in progress any more.
const NOT_IN_PROGRESS: u64 = 21220;

/// A change of a call that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It ends.
    Complete,
    /// It goes on with this.
    Twiml(&'a str),
}

impl Change<'_> {
    /// As posted: `application/x-www-form-urlencoded`.
    pub fn form(self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        match self {
            Change::Complete => form.append_pair("Status", "completed"),
            Change::Twiml(xml) => form.append_pair("Twiml", xml),
        };
        form.finish()
    }
}

/// The path of a call below the base of the API. None if an id is not one: they come from whoever
/// opens a stream, and must not lead anywhere else.
pub fn path_of_call(account_sid: &str, call_sid: &str) -> Option<String> {
    (is_sid(account_sid) && is_sid(call_sid))
        .then(|| format!("/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}.json"))
}

/// An id as Twilio makes them, or a UUID, as some do that speak its API.
pub fn is_sid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// What the API says where it refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Refused {
    pub code: u64,
    #[serde(default)]
    pub message: String,
}

impl Refused {
    /// None if the body is nothing that the API would say.
    pub fn read(body: &[u8]) -> Option<Refused> {
        serde_json::from_slice(body).ok()
    }

    /// The call that was to be changed is not there any more.
    pub fn is_over(&self) -> bool {
        matches!(self.code, NOT_FOUND | NOT_IN_PROGRESS)
    }
}

/// Whether this is a call, as the API answers a change of one.
pub fn is_call(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Call {
        sid: String,
    }
    serde_json::from_slice::<Call>(body).is_ok_and(|call| is_sid(&call.sid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_form() {
        assert_eq!(Change::Complete.form(), "Status=completed");
        let twiml = Change::Twiml("<Response><Play digits=\"1 #\"/></Response>");
        assert_eq!(twiml.form(), "Twiml=%3CResponse%3E%3CPlay+digits%3D%221+%23%22%2F%3E%3C%2FResponse%3E");
    }

    #[test]
    fn an_id_leads_nowhere_else() {
        let path = path_of_call("AC1", "CA1");
        assert_eq!(path.as_deref(), Some("/2010-04-01/Accounts/AC1/Calls/CA1.json"));
        let uuid = "7a7b8c2e-1f1c-4a65-9d59-0d3c5f6a7b8c";
        assert!(path_of_call(uuid, uuid).is_some());
        for bad in ["", "../x", "CA1/..", "CA1?x", "CA1#", "CA 1", "CA1%2f", "CÄ", &"A".repeat(65)] {
            assert_eq!(path_of_call("AC1", bad), None, "{bad}");
            assert_eq!(path_of_call(bad, "CA1"), None, "{bad}");
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let said = br#"{"code": 20404, "message": "The requested resource was not found",
            "more_info": "https://www.twilio.com/docs/errors/20404", "status": 404}"#;
        let refused = Refused::read(said).unwrap();
        assert_eq!((refused.code, refused.is_over()), (20404, true));
        assert!(Refused { code: 21220, ..Refused::default() }.is_over());
        assert!(!Refused { code: 20003, ..Refused::default() }.is_over());
        for nonsense in ["", "{}", "<html>", "[]", r#"{"code":"x"}"#] {
            assert_eq!(Refused::read(nonsense.as_bytes()), None, "{nonsense}");
            assert!(!is_call(nonsense.as_bytes()));
        }
        assert!(is_call(br#"{"sid": "CA1", "status": "completed", "price": null}"#));
        assert!(!is_call(br#"{"sid": ""}"#));
    }
}
