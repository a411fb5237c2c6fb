# What docker-compose.yml needs of the official redis image: redis-server, redis-cli and the user redis.
ARG BASE
FROM ${BASE}
RUN apt-get update --quiet \
 && apt-get install --quiet --yes --no-install-recommends redis-server \
 && apt-get clean && rm -rf /var/lib/apt/lists/*
USER redis
CMD ["redis-server"]
