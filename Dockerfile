# An image of the service and what it cannot do without: its libraries, the certificates that this system trusts, and a
# user without rights. There is no shell in it.
FROM rust:1.95-slim AS build
WORKDIR /build
COPY . .
ARG FEATURES=""
RUN cargo build --locked --release --bin tenant-tasks --features "$FEATURES"
RUN src/setup/image.sh target/release/tenant-tasks /image

FROM scratch
COPY --from=build /image /
# .env, if there is one, is looked for here. Its folder is mounted, not the file: a new one takes the old one's place.
WORKDIR /config
USER 65532:65532
# In a container its own address reaches nobody else.
ENV HOST=0.0.0.0 LOG_FORMAT=json
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/tenant-tasks", "health"]
ENTRYPOINT ["/tenant-tasks"]
