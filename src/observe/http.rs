//! What is counted of a request: its counters are looked up once, and not by every request.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::labels::Route;

/// The classes of status codes; what has no status at all is a failure of ours.
const CODES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const NO_STATUS: usize = 4;

pub(super) struct Http(Vec<Counted>);

/// Of one route.
struct Counted {
    codes: [IntCounter; 5],
    seconds: Option<Histogram>,
}

impl Http {
    pub(super) fn new(requests: &IntCounterVec, seconds: &HistogramVec) -> Http {
        let counted = |route: &Route| Counted {
            codes: CODES.map(|code| requests.with_label_values(&[route.as_str(), code])),
            seconds: route.takes_time().then(|| seconds.with_label_values(&[route.as_str()])),
        };
        Http(Route::ALL.iter().map(counted).collect())
    }

    pub(super) fn done(&self, route: Route, status: u16, seconds: f64) {
        let Some(counted) = self.0.get(route as usize) else { return };
        let class = usize::from(status / 100).wrapping_sub(1);
        counted.codes.get(class).unwrap_or(&counted.codes[NO_STATUS]).inc();
        if let Some(histogram) = &counted.seconds {
            histogram.observe(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, Opts};

    use super::*;

    #[test]
    fn each_route_has_its_own() {
        let requests = IntCounterVec::new(Opts::new("requests", "x"), &["route", "code"]).unwrap();
        let seconds = HistogramVec::new(HistogramOpts::new("seconds", "x"), &["route"]).unwrap();
        let http = Http::new(&requests, &seconds);
        for route in Route::ALL {
            http.done(route, 200, 0.1);
            http.done(route, 0, 0.1);
            for code in ["2xx", "5xx"] {
                assert_eq!(requests.with_label_values(&[route.as_str(), code]).get(), 1, "{route:?} {code}");
            }
            let timed = seconds.with_label_values(&[route.as_str()]).get_sample_count();
            assert_eq!(timed, if route.takes_time() { 2 } else { 0 }, "{route:?}");
        }
    }
}
