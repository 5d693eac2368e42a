-- The operations desk reports whenever a flight of the last day leaves: other fields of
-- `flights::airport-now` than the weather stations send.
WITH last_day AS (
    SELECT
        origin,
        dep_delay,
        cancelled,
        scheduled_departure_at AS due_at,
        scheduled_departure_at + to_minutes(dep_delay) AS departed_at
    FROM flights
    WHERE make_date(year, month, day) = (SELECT max(make_date(year, month, day)) FROM flights)
),
reports AS (
    SELECT DISTINCT
        origin,
        departed_at AS reported_at,
        departed_at - INTERVAL 1 HOUR AS hour_before
    FROM last_day
    WHERE NOT cancelled
)
SELECT
    origin AS airport,
    count(*) FILTER (WHERE departed_at > hour_before AND departed_at <= reported_at)
        AS departures_last_hour,
    count(*) FILTER (WHERE cancelled AND due_at > hour_before AND due_at <= reported_at)
        AS cancellations_last_hour,
    avg(dep_delay) FILTER (WHERE departed_at > hour_before AND departed_at <= reported_at)
        AS departure_delay_mean_min,
    count(*) FILTER (WHERE due_at <= reported_at AND departed_at > reported_at)
        AS departure_queue,
    reported_at AS _event_time
FROM reports
JOIN last_day USING (origin)
GROUP BY origin, reported_at
