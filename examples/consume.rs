//! Reads the feed and books each event once: cargo run --example consume -- http://127.0.0.1:9090 shop.json
use serde_json::{Value, json};

/// Obeys the verdict of an event; `shop` is the order system's own state.
fn obey(shop: &mut Value, event: &Value) {
    let (id, data) = (event["id"].as_str().unwrap_or_default(), &event["data"]);
    if !shop["seen"][id].is_null() {
        return; // it came again: its id never changes
    }
    let order = data["order_id"].as_str().unwrap_or_default();
    let open = &shop["open"][order];
    let equal = open["minor_units"] == data["amount"]["minor_units"] && open["currency"] == data["amount"]["currency"];
    match data["verdict"].as_str() {
        Some("fulfil") => shop["booked"][order] = event["type"].clone(),
        Some("compare") if !open.is_null() && equal => shop["booked"][order] = event["type"].clone(),
        Some("none") => {}
        _ => shop["look"][id] = json!(order), // hold, and whatever did not compare: a person looks
    }
    shop["seen"][id] = json!(true);
}

/// One question to the feed; whether something came.
pub fn step(feed: &str, file: &str, wait: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let mut shop: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let after = shop["cursor"].as_str().map(|cursor| format!("&after={cursor}")).unwrap_or_default();
    let url = format!("{feed}/api/v1/events?consumer=shop&wait={wait}{after}");
    let page: Value = serde_json::from_str(&ureq::get(url).call()?.body_mut().read_to_string()?)?;
    let entries = page["entries"].as_array().cloned().unwrap_or_default();
    entries.iter().for_each(|entry| obey(&mut shop, &entry["event"]));
    shop["cursor"] = page["next"].clone();
    // What was booked, what was seen and the cursor change in one step, or not at all.
    std::fs::write(format!("{file}.new"), shop.to_string())?;
    std::fs::rename(format!("{file}.new"), file)?;
    Ok(!entries.is_empty())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, feed, file, ..] = arguments.as_slice() else { return Err("consume FEED FILE".into()) };
    loop {
        step(feed, file, "30s")?;
    }
}
