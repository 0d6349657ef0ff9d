//! The console in a real browser, with a real desk behind it.

#[path = "support/browser.rs"]
mod browser;
#[path = "support/scenes.rs"]
mod scenes;
#[path = "support/web.rs"]
mod web;

use browser::Browser;
use countersign::approval::HoldState;
use countersign::desk::Ending;
use serde_json::json;
use web::{House, Plan};

/// Pictures of every page, for looking at: `cargo nextest run --test console --run-ignored only`.
#[test]
#[ignore = "makes pictures; what they show is for people to judge"]
fn pictures_of_every_page() {
    let house = House::open_with(Plan::default());
    let scene = scenes::set(&house);
    let mut browser = Browser::open();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)] {
        browser.fresh(json!({"scheme": scheme, "width": width, "height": 860}));
        let mut picture = |browser: &mut Browser, name: &str| {
            let path = folder.join(format!("{name}-{scheme}-{width}.png"));
            browser.screenshot(path.to_str().unwrap(), true);
        };
        browser.goto(&house.at("/sign-in"));
        picture(&mut browser, "sign-in");
        browser.goto(house.web.sign_in_link(&"carol@example.com".into()).unwrap().as_str());
        picture(&mut browser, "sign-in-link");
        browser.submit("button.primary");
        for (name, path) in scene.pages() {
            browser.goto(&house.at(&path));
            if browser.count("[data-live]") > 0 {
                browser.wait("#live.on");
            }
            picture(&mut browser, &name);
        }
        browser.fill("#what-if-sql", "copy (select * from customers) to stdout");
        browser.submit("button.primary");
        picture(&mut browser, "what-if");
        browser.goto(&house.at("/nowhere"));
        picture(&mut browser, "nowhere");
    }
}
