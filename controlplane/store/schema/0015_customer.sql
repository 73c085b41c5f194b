-- Before data is deleted its customer's other subscriptions are looked for.
CREATE INDEX subscription_customer ON subscription (customer_id);
