//! Pictures on a page that needs nothing else: no script, no style and no font from anywhere.

use super::Picture;
use super::svg::{escaped, svg};

/// A page of pictures under a title, with lines that say how they came about.
pub fn page(title: &str, pictures: &[Picture], notes: &[String]) -> String {
    let title = escaped(title);
    let drawn: Vec<String> =
        pictures.iter().map(|picture| format!("<figure>\n{}</figure>\n", svg(picture))).collect();
    let notes: Vec<String> =
        notes.iter().map(|note| format!("<li>{}</li>\n", escaped(note))).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>body{{font:15px system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;\
         color:#222}}figure{{margin:1.5em 0}}svg{{max-width:100%;height:auto}}li{{color:#555;\
         font-size:13px}}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{}<h2>How computed</h2>\n<ul>\n{}</ul>\n\
         </body>\n</html>\n",
        drawn.concat(),
        notes.concat()
    )
}
