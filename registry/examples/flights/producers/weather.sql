-- The weather stations' last day of reports, as `flights::airport-now` fields of one producer.
SELECT
    origin AS airport,
    temp AS temperature_f,
    humid AS humidity_percent,
    wind_speed AS wind_speed_mph,
    wind_gust AS wind_gust_mph,
    precip AS precipitation_in,
    pressure AS pressure_mbar,
    visib AS visibility_miles,
    time_hour AS _event_time
FROM weather
WHERE time_hour > (SELECT max(time_hour) FROM weather) - INTERVAL 24 HOURS
