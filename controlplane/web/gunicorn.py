"""gunicorn's configuration: `gunicorn -c python:controlplane.web.gunicorn controlplane.wsgi:app`.

Address, processes and threads are the deployment's to say, on the command line. The control socket is
off because its default path is one for each user, which two servers of one machine would fight over.
"""

from controlplane.web import logs

bind = "127.0.0.1:8000"
worker_class = "controlplane.web.worker.DeadlineWorker"
workers = 2
threads = 16
worker_connections = 2000  # of each process; those that wait cost a file descriptor each
timeout = 30  # seconds without a sign of life of the process until it is replaced
graceful_timeout = 20  # seconds that a stopping process has for what it began
keepalive = 75  # seconds, more than the idle time of a load balancer (ALB: 60), which closes first then
backlog = 512
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
max_requests = 100_000
max_requests_jitter = 10_000
control_socket_disable = True
accesslog = None  # the application logs its requests itself
logconfig_dict = logs.CONFIG
