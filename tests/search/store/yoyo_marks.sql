-- The tables of yoyo-migrations 9.0.0 as pg_dump printed them in a database that it had migrated, with the marks of two files.
CREATE TABLE immich_ai._yoyo_log (
    id character varying(36) NOT NULL PRIMARY KEY,
    migration_hash character varying(64),
    migration_id character varying(255),
    operation character varying(10),
    username character varying(255),
    hostname character varying(255),
    comment character varying(255),
    created_at_utc timestamp without time zone
);
CREATE TABLE immich_ai._yoyo_migrations (
    migration_hash character varying(64) NOT NULL PRIMARY KEY,
    migration_id character varying(255),
    applied_at_utc timestamp without time zone
);
CREATE TABLE immich_ai._yoyo_version (version integer NOT NULL PRIMARY KEY, installed_at_utc timestamp without time zone);
INSERT INTO immich_ai._yoyo_migrations VALUES
    ('3d4e49138f5656408afaba66f07f10aded6f025f4a5656e54223548850f73f8a', '0001_first', '2026-11-27 01:07:42.997026'),
    ('4a3ac774aa90f0e26ef1c8a1f06925d9f6b1da435aeeabb6c67a41c390bbf06a', '0002_second', '2026-11-27 01:07:43.009186');
INSERT INTO immich_ai._yoyo_version VALUES (2, '2026-11-27 01:07:42.932623');
