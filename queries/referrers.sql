-- The sites that sent the most visitors; requests that name none are one row, with no host.
SELECT referrer_host, count(DISTINCT customer_id) AS clients, count(*) AS requests
FROM events
WHERE event_name = 'http_request'
GROUP BY referrer_host
ORDER BY clients DESC, referrer_host
LIMIT 20
