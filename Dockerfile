# The image contains the binary, its shared libraries, the trusted CA certificates and an unprivileged user.
# It does not contain a shell.
FROM rust:1.95-slim AS build
WORKDIR /build
COPY . .
ARG FEATURES=""
RUN cargo build --locked --release --bin tenant-tasks --features "$FEATURES"
RUN src/setup/image.sh target/release/tenant-tasks /image

FROM scratch
COPY --from=build /image /
# The service reads .env from this folder. Mount the folder, not the file: `tenants` replaces the file.
WORKDIR /config
USER 65532:65532
# The default, 127.0.0.1, cannot be reached from outside the container.
ENV HOST=0.0.0.0 LOG_FORMAT=json
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/tenant-tasks", "health"]
ENTRYPOINT ["/tenant-tasks"]
