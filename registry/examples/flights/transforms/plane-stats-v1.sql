-- flights::plane-stats-v1: one row per plane, as of its last scheduled departure.
WITH by_plane AS (
    SELECT
        tailnum,
        count(*) AS flights,
        count(*) FILTER (WHERE cancelled) AS cancelled_flights,
        avg(cancelled::INTEGER) AS cancelled_share,
        avg(dep_delay) AS departure_delay_mean_min,
        max(dep_delay) AS departure_delay_max_min,
        avg(arr_delay) AS arrival_delay_mean_min,
        max(arr_delay) AS arrival_delay_max_min,
        coalesce(avg((arr_delay >= 15)::INTEGER), 0) AS late_share,
        coalesce(sum(distance) FILTER (WHERE NOT cancelled), 0) AS distance_miles,
        avg(distance) AS distance_mean_miles,
        coalesce(sum(air_time), 0) AS air_time_min,
        list_sort(list(DISTINCT carrier)) AS carriers,
        count(DISTINCT dest) AS destinations,
        min(make_date(year, month, day)) AS first_flight,
        max(scheduled_departure_at) AS last_departure_at
    FROM flights
    WHERE tailnum IS NOT NULL
    GROUP BY tailnum
),
main_carriers AS (
    SELECT tailnum, carrier AS main_carrier
    FROM flights
    WHERE tailnum IS NOT NULL
    GROUP BY tailnum, carrier
    QUALIFY row_number() OVER (PARTITION BY tailnum ORDER BY count(*) DESC, carrier) = 1
),
hours AS (
    SELECT tailnum, range AS hour, count(flights.hour) FILTER (WHERE flights.hour = range) AS departures
    FROM flights, range(24)
    WHERE tailnum IS NOT NULL
    GROUP BY tailnum, range
),
shares AS (
    SELECT tailnum, list(departures / total ORDER BY hour) AS departures_by_hour
    FROM (SELECT *, sum(departures) OVER (PARTITION BY tailnum) AS total FROM hours)
    GROUP BY tailnum
)
SELECT
    by_plane.*,
    main_carriers.main_carrier,
    shares.departures_by_hour,
    planes.year,
    planes.manufacturer,
    planes.model,
    planes.engines,
    planes.seats,
    planes.engine IN ('Turbo-fan', 'Turbo-jet') AS jet,
    by_plane.last_departure_at AS _event_time
FROM by_plane
JOIN main_carriers USING (tailnum)
JOIN shares USING (tailnum)
LEFT JOIN planes USING (tailnum)
