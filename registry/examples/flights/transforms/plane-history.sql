-- flights::plane-history: every leg is an event at its scheduled departure.
SELECT
    tailnum,
    carrier,
    flight,
    origin,
    dest,
    cancelled,
    dep_delay AS departure_delay_min,
    arr_delay AS arrival_delay_min,
    air_time AS air_time_min,
    distance AS distance_miles,
    scheduled_departure_at AS _event_time
FROM flights
WHERE tailnum IS NOT NULL
