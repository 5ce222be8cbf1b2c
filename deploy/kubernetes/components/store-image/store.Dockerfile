# An image with the model store, and busybox to copy it. Run in the checkout:
#   docker build -t REGISTRY/anomaly-store:TAG -f deploy/kubernetes/components/store-image/store.Dockerfile .
FROM busybox:1.37
COPY model_store /model_store
RUN chmod -R a+rX /model_store
USER 10001:10001
