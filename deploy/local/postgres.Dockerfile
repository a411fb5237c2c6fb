# What docker-compose.yml needs of the official postgres image: its entrypoint, its folders and the user postgres.
ARG BASE
FROM ${BASE}
RUN mkdir -p /etc/postgresql-common \
 && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf \
 && apt-get update --quiet \
 && apt-get install --quiet --yes --no-install-recommends postgresql \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
 && mkdir /docker-entrypoint-initdb.d \
 && install --directory --owner postgres --group postgres --mode 0700 /var/lib/postgresql/data \
 && chmod 3777 /run/postgresql
COPY postgres-entrypoint /usr/local/bin/
ENV PGDATA=/var/lib/postgresql/data
USER postgres
# As in the official image: no new connections, and those that are open are rolled back.
STOPSIGNAL SIGINT
ENTRYPOINT ["postgres-entrypoint"]
CMD ["postgres"]
