//! Heads of requests that come again, as a caller in a service mesh sends them.

use std::hint::black_box;

use headrace_codec::lane::heads::KnownHeads;

/// Requests of one run.
pub(crate) const REQUESTS: usize = 100;
const BODY: &str = r#"{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1]}}]}"#;

/// Two heads that are known, and requests under each.
pub(crate) struct Heads {
    known: KnownHeads,
    pub(crate) plain: Vec<Vec<u8>>,
    pub(crate) identified: Vec<Vec<u8>>,
}

impl Heads {
    pub(crate) fn new() -> Self {
        let plain: Vec<_> = (0..REQUESTS).map(|_| request("")).collect();
        let id =
            |number: usize| format!("x-request-id: 4bf92f3577b34da6a3ce929d0e{number:06x}\r\n");
        let identified: Vec<_> = (0..REQUESTS).map(|number| request(&id(number))).collect();
        let mut known = KnownHeads::default();
        for requests in [&plain, &identified] {
            let head = requests[0].strip_suffix(BODY.as_bytes()).unwrap();
            assert!(known.learn(head, 0));
        }
        Self { known, plain, identified }
    }

    pub(crate) fn run(&self, requests: &[Vec<u8>]) {
        for request in black_box(requests) {
            let (_, found) = self.known.find(request, 1 << 20).unwrap();
            assert_eq!(found.body_start, request.len() - BODY.len());
        }
    }
}

fn request(id: &str) -> Vec<u8> {
    format!(
        "POST /v1/read HTTP/1.1\r\nhost: features.live.svc.cluster.local:6566\r\naccept: */*\r\n\
         user-agent: room-ranker/3.1\r\n{id}content-type: application/json\r\n\
         content-length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
    .into_bytes()
}
