//! A form with a file in it, as `multipart/form-data` (RFC 7578), whole and in memory: a request may
//! have to be sent twice, and services are easier with a body whose length is known.

use reqwest::header::HeaderValue;

pub(super) struct File<'a> {
    pub(super) field: &'static str,
    pub(super) name: &'static str,
    pub(super) content_type: &'static str,
    pub(super) bytes: &'a [u8],
}

/// The Content-Type and the body. The names are ours; the values may be anything.
pub(super) fn form(fields: &[(&'static str, &str)], file: &File<'_>) -> (HeaderValue, Vec<u8>) {
    let boundary = boundary(fields, file);
    let mut body = Vec::with_capacity(file.bytes.len() + 1024);
    for (name, value) in fields {
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\n\
         Content-Type: {}\r\n\r\n",
        file.field, file.name, file.content_type
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(file.bytes);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let content_type = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}"));
    // Letters and digits can always be sent.
    (content_type.unwrap_or(HeaderValue::from_static("multipart/form-data")), body)
}

/// A line that stands in none of the parts.
fn boundary(fields: &[(&'static str, &str)], file: &File<'_>) -> String {
    let stands_in = |part: &[u8], line: &str| part.windows(line.len()).any(|bytes| bytes == line.as_bytes());
    let mut number = 0_u64;
    loop {
        let line = format!("voxgate-part-{number:016x}");
        let is_taken = fields.iter().any(|(_, value)| stands_in(value.as_bytes(), &line));
        if !is_taken && !stands_in(file.bytes, &line) {
            return line;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_its_parts_between_boundaries() {
        let file = File { field: "file", name: "a.wav", content_type: "audio/wav", bytes: b"\0\r\n--\xff" };
        let (content_type, body) = form(&[("model", "m"), ("prompt", "")], &file);
        assert_eq!(content_type, "multipart/form-data; boundary=voxgate-part-0000000000000000");
        let expected = b"--voxgate-part-0000000000000000\r\n\
            Content-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n\
            --voxgate-part-0000000000000000\r\n\
            Content-Disposition: form-data; name=\"prompt\"\r\n\r\n\r\n\
            --voxgate-part-0000000000000000\r\n\
            Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
            Content-Type: audio/wav\r\n\r\n\0\r\n--\xff\r\n\
            --voxgate-part-0000000000000000--\r\n";
        assert_eq!(body, expected);
    }

    #[test]
    fn a_boundary_is_in_none_of_the_parts() {
        let file = File {
            field: "file",
            name: "a.wav",
            content_type: "audio/wav",
            bytes: b"..voxgate-part-0000000000000001..",
        };
        let (content_type, _) = form(&[("prompt", "say voxgate-part-0000000000000000")], &file);
        assert_eq!(content_type, "multipart/form-data; boundary=voxgate-part-0000000000000002");
    }
}
