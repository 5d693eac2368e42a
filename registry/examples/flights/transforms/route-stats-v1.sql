-- flights::route-stats-v1: one row per origin and destination, as of the route's last departure.
SELECT
    flights.origin,
    flights.dest,
    count(*) AS flights,
    avg(cancelled::INTEGER) AS cancelled_share,
    avg(dep_delay) AS departure_delay_mean_min,
    avg(arr_delay) AS arrival_delay_mean_min,
    quantile_cont(arr_delay, 0.9) AS arrival_delay_p90_min,
    coalesce(avg((arr_delay >= 15)::INTEGER), 0) AS late_share,
    max(distance) AS distance_miles,
    avg(air_time) AS air_time_mean_min,
    count(DISTINCT carrier) AS carriers,
    count(DISTINCT tailnum) AS planes,
    any_value(airports.name) AS dest_name,
    any_value(airports.tzone) AS dest_timezone,
    max(scheduled_departure_at) AS _event_time
FROM flights
LEFT JOIN airports ON airports.faa = flights.dest
GROUP BY flights.origin, flights.dest
