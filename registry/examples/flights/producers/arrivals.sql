-- The operations desk of the destination reports whenever a flight of the last day lands.
WITH landings AS (
    SELECT
        dest,
        arr_delay,
        scheduled_departure_at + to_minutes(dep_delay) + to_minutes(air_time) AS landed_at
    FROM flights
    WHERE make_date(year, month, day) = (SELECT max(make_date(year, month, day)) FROM flights)
        AND arr_delay IS NOT NULL
),
reports AS (
    SELECT DISTINCT
        dest,
        landed_at AS reported_at,
        landed_at - INTERVAL 1 HOUR AS hour_before
    FROM landings
)
SELECT
    dest AS airport,
    count(*) AS arrivals_last_hour,
    avg(arr_delay) AS arrival_delay_mean_min,
    reported_at AS _event_time
FROM reports
JOIN landings USING (dest)
WHERE landed_at > hour_before AND landed_at <= reported_at
GROUP BY dest, reported_at
