-- Requests per day (UTC) that failed, beside all of them.
SELECT
  date_trunc('day', "timestamp") AS day,
  count(*) AS requests,
  sum(CASE WHEN status >= 400 THEN 1 ELSE 0 END) AS failed
FROM events
WHERE event_name = 'http_request'
GROUP BY date_trunc('day', "timestamp")
ORDER BY day
