-- The demo's database: a small shop, with things in it that an agent should not just take.
CREATE ROLE shop_agent LOGIN PASSWORD 'only-the-proxy-knows-this';
CREATE DATABASE shop OWNER shop_agent;
\connect shop
SET ROLE shop_agent;
CREATE TABLE customers (
    id         int PRIMARY KEY,
    name       text NOT NULL,
    email      text NOT NULL,
    born       date,
    iban       text,
    region     text,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE customers IS 'People. Names, addresses and accounts are personal data.';
INSERT INTO customers
SELECT n,
       (ARRAY['Ada', 'Grace', 'Edsger', 'Barbara', 'Alan', 'Frances', 'Donald', 'Radia'])[n % 8 + 1] || ' ' ||
       (ARRAY['Okafor', 'Lindqvist', 'Tanaka', 'Moreau', 'Silva', 'Novak', 'Haddad'])[n % 7 + 1],
       'customer' || n || '@example.com',
       date '1950-01-01' + (n * 97) % 18000,
       'XX00 0000 ' || lpad((n * 7919 % 10000)::text, 4, '0'),
       (ARRAY['eu', 'us', 'apac'])[n % 3 + 1],
       now() - n * interval '3 hours'
FROM generate_series(1, 500) n;
CREATE TABLE orders (
    id          int PRIMARY KEY,
    customer_id int NOT NULL REFERENCES customers,
    amount      numeric(10, 2) NOT NULL,
    status      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO orders
SELECT n, n % 500 + 1, (n * 37 % 9000) / 10.0 + 5,
       (ARRAY['paid', 'paid', 'paid', 'open', 'refunded'])[n % 5 + 1],
       now() - n * interval '17 minutes'
FROM generate_series(1, 5000) n;
CREATE TABLE coupons (code text PRIMARY KEY, percent int NOT NULL, active boolean NOT NULL DEFAULT true);
INSERT INTO coupons VALUES ('WELCOME', 10), ('SPRING', 15), ('LOYAL', 20);
CREATE VIEW revenue_by_region AS
    SELECT region, count(*) AS orders, sum(amount) AS revenue
    FROM orders JOIN customers ON customers.id = customer_id WHERE status = 'paid' GROUP BY region;
