-- The ten directories that sent the most bytes. `top` is a word of SQL, hence the quotes.
SELECT "top", sum(bytes) AS total_bytes, count(*) AS requests
FROM events
WHERE event_name = 'http_request'
GROUP BY "top"
ORDER BY total_bytes DESC NULLS LAST, "top"
LIMIT 10
