//! The example of the guide, played as the guide tells it.

use std::time::Duration;

use serde_json::json;
use tidehook::engine::callback::Answer;
use tidehook::model::Body;
use tidehook::model::RunStatus;

use super::play::{Play, ok, status};
use crate::in_every_way;

const EXAMPLE: &str = include_str!("../../../examples/order-workflow.yaml");
const ORDER: &str = r#"{"id": 7, "amount": 40, "items": [{"sku": "a"}, {"sku": "b"}]}"#;

#[tokio::test]
async fn an_order_is_charged_packed_confirmed_and_sent() {
    in_every_way!(EXAMPLE, |play: Play| async move {
        play.script("billing.example.com/charge", vec![ok(r#"{"id": "pay-1"}"#)]);
        play.script("stock.example.com/reserve", vec![ok("\"r\"")]);
        play.send("shop", "order.placed", ORDER).await;
        play.engine
            .answer(&play.token(), &Answer::Done(Body::new(br#"{"express": true}"#.to_vec())))
            .await
            .unwrap();
        play.work().await;
        let last = play.calls().last().unwrap().clone();
        assert_eq!(
            (last.to.as_str(), &last.json()["payment"]["id"]),
            ("courier.example.com/pickup", &json!("pay-1"))
        );
        let packed = json!([{"sku": "a", "reservation": "r"}, {"sku": "b", "reservation": "r"}]);
        assert_eq!(last.json()["packed"], packed);
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
    });
}

#[tokio::test]
async fn an_order_that_cannot_be_packed_is_refunded_and_told() {
    in_every_way!(EXAMPLE, |play: Play| async move {
        play.script("billing.example.com/charge", vec![ok(r#"{"id": "pay-1"}"#)]);
        play.script("billing.example.com/refund", vec![status(500)]);
        play.script("stock.example.com/reserve", vec![status(409)]);
        play.send("shop", "order.placed", ORDER).await;
        for _ in 0..60 {
            play.advance(Duration::from_secs(60)).await;
        }
        let calls = play.calls();
        let refund =
            calls.iter().find(|call| call.to == "billing.example.com/refund").unwrap().json();
        assert_eq!(refund, json!({"payment": "pay-1", "because": "HTTP 409"}));
        let last = calls.last().unwrap();
        assert_eq!(
            (last.to.as_str(), &last.json()["id"]),
            ("shop.example.com/orders/failed", &json!(7))
        );
        assert_eq!(play.the_run().await.status, RunStatus::Completed);
    });
}
