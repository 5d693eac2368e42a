-- Runs before every transform: names the raw tables. `sources` is the folder given to
-- `headrace transform --sources`; the packaged files write a missing value as NA.
CREATE OR REPLACE TEMP VIEW flights_raw AS
SELECT * FROM read_csv(getvariable('sources') || '/flights.csv', nullstr = 'NA');

CREATE OR REPLACE TEMP VIEW planes AS
SELECT * FROM read_csv(getvariable('sources') || '/planes.csv', nullstr = 'NA');

CREATE OR REPLACE TEMP VIEW airports AS
SELECT * FROM read_csv(getvariable('sources') || '/airports.csv', nullstr = 'NA');

CREATE OR REPLACE TEMP VIEW weather AS
SELECT * FROM read_csv(getvariable('sources') || '/weather.csv', nullstr = 'NA');

-- `time_hour` is the scheduled hour in UTC; a flight that never left has no departure time.
CREATE OR REPLACE TEMP VIEW flights AS
SELECT
    *,
    time_hour + to_minutes(minute) AS scheduled_departure_at,
    dep_time IS NULL AS cancelled
FROM flights_raw;
